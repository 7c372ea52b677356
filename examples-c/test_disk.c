/*
 * A full disk and a read-only one: each call that needs the disk says so and leaves everything as it was, and what
 * frees the disk works on a full one.
 *
 * The disk is a small tmpfs in a mount namespace of this process's own; where that is not allowed, nothing is tested
 * and the program says so.
 */
#include "example.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static struct example where;
static char ballast[4200];

static void require(int condition, const char *what) {
  if (condition) return;
  tell(what);
  fprintf(stderr, "WRONG: %s\n", what);
  exit(1);
}
#define REQUIRE(condition) require((condition), #condition)

/* Becomes root of namespaces of its own, which needs no privilege on most machines. */
static int has_a_disk_of_its_own(void) {
  if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return 0;
  mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
  return (mkdir(where.state, 0700) == 0 || errno == EEXIST) &&
         mount("disk", where.state, "tmpfs", 0, "size=1m,mode=700") == 0;
}

static unsigned long free_blocks(void) {
  struct statvfs disk;
  REQUIRE(statvfs(where.state, &disk) == 0);
  return disk.f_bfree;
}

/* Fills the disk but for so many blocks. */
static void leave_free(unsigned long blocks) {
  static char block[4096];
  int fd = open(ballast, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  REQUIRE(fd >= 0);
  while (free_blocks() > blocks) REQUIRE(write(fd, block, sizeof block) == sizeof block);
  close(fd);
}

static void is_full(mvm_status status) {
  mvm_error error = MVM_ERROR_INIT;
  mvm_last_error(&error);
  REQUIRE(status == MVM_ERR_NO_RESOURCES && error.os_errno == ENOSPC);
  REQUIRE(strstr(error.message, where.state) != NULL); /* it names the file */
}

static int vms(mvm_runtime *runtime) {
  mvm_vm_summary vm = MVM_VM_SUMMARY_INIT;
  int count = 0;
  for (MUST(mvm_runtime_next_vm(runtime, NULL, &vm)); vm.id[0] != '\0'; count++)
    MUST(mvm_runtime_next_vm(runtime, vm.id, &vm));
  return count;
}

/* The keeper writes a file of its own when it begins. */
static void await_the_keeper(mvm_runtime *runtime, const char *spec) {
  mvm_vm *vm;
  char file[4200];
  snprintf(file, sizeof file, "%s/keeper.json", where.state);
  MUST(mvm_create(runtime, "first", spec, &vm));
  for (int i = 0; where.keeper != NULL && access(file, F_OK) != 0; i++) {
    REQUIRE(i < 30000);
    usleep(1000);
  }
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
}

static void a_creation_on_a_full_disk_leaves_nothing(mvm_runtime *runtime, const char *spec) {
  mvm_vm *vm;
  int failed = 0, worked = 0;
  await_the_keeper(runtime, spec);
  for (unsigned long blocks = 0; blocks < 32 && !worked; blocks++) {
    leave_free(blocks);
    unsigned long before = free_blocks();
    mvm_status status = mvm_create(runtime, "full", spec, &vm);
    if (status == MVM_OK) {
      worked = 1;
      MUST(mvm_destroy(vm));
      MUST(mvm_release(vm));
    } else {
      is_full(status);
      failed++;
      REQUIRE(vm == NULL && vms(runtime) == 0);
    }
    if (free_blocks() != before) fprintf(stderr, "%lu blocks were free, and %lu are\n", before, free_blocks());
    REQUIRE(free_blocks() == before);
  }
  REQUIRE(failed > 0 && worked);
}

static void what_frees_the_disk_works_on_a_full_one(mvm_runtime *runtime, const char *spec) {
  mvm_vm *vm;
  mvm_vm_state state;
  mvm_shutdown_outcome outcome;
  leave_free(64);
  MUST(mvm_create(runtime, "full", spec, &vm));
  MUST(mvm_start(vm));
  leave_free(0);
  MUST(mvm_pause(vm));
  MUST(mvm_resume(vm));
  MUST(mvm_shutdown(vm, 0, 0, &outcome));
  /* A start has to announce its VMM first: it cannot, and the VM is as it was. */
  is_full(mvm_start(vm));
  MUST(mvm_state(vm, &state));
  REQUIRE(state == MVM_STATE_STOPPED);
  leave_free(64);
  MUST(mvm_start(vm));
  leave_free(0);
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
  REQUIRE(vms(runtime) == 0);
}

static void an_owner_on_a_full_disk_takes_over_all_the_same(const char *spec) {
  mvm_runtime *runtime;
  mvm_vm *vm;
  mvm_vm_state state;
  leave_free(64);
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  MUST(mvm_create(runtime, "taken", spec, &vm));
  MUST(mvm_start(vm));
  leave_free(0);
  MUST(mvm_runtime_close(runtime));
  mvm_status status = mvm_runtime_open(where.state, where.options, &runtime);
  if (status == MVM_ERR_NO_RESOURCES) { /* not even a block for the name of the owner */
    is_full(status);
    leave_free(1);
    status = mvm_runtime_open(where.state, where.options, &runtime);
  }
  must_be_ok(status, "mvm_runtime_open");
  MUST(mvm_open(runtime, "taken", &vm));
  MUST(mvm_state(vm, &state));
  REQUIRE(state == MVM_STATE_RUNNING);
  MUST(mvm_destroy(vm));
  MUST(mvm_runtime_close(runtime));
}

static void a_read_only_disk_is_told_and_changes_nothing(const char *spec) {
  mvm_runtime *runtime, *none;
  mvm_vm *vm, *other;
  mvm_vm_state state;
  mvm_error error = MVM_ERROR_INIT;
  leave_free(64);
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  MUST(mvm_create(runtime, "rigid", spec, &vm));
  MUST(mvm_kill(vm));
  MUST(mvm_runtime_close(runtime)); /* with it goes whatever has a file open for writing */
  REQUIRE(mount(NULL, where.state, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0);
  REQUIRE(mvm_runtime_open(where.state, where.options, &none) == MVM_ERR_PERMISSION && none == NULL);
  mvm_last_error(&error);
  REQUIRE(error.os_errno == EROFS && strstr(error.message, "/lock") != NULL);
  REQUIRE(mount(NULL, where.state, NULL, MS_REMOUNT | MS_BIND, NULL) == 0);

  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  MUST(mvm_open(runtime, "rigid", &vm));
  char vms_path[4200];
  snprintf(vms_path, sizeof vms_path, "%s/vms", where.state);
  REQUIRE(mount(vms_path, vms_path, NULL, MS_BIND, NULL) == 0);
  REQUIRE(mount(NULL, vms_path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0);
  REQUIRE(mvm_start(vm) == MVM_ERR_PERMISSION);
  REQUIRE(mvm_create(runtime, "more", spec, &other) == MVM_ERR_PERMISSION && other == NULL);
  REQUIRE(mvm_destroy(vm) == MVM_ERR_PERMISSION);
  MUST(mvm_state(vm, &state));
  REQUIRE(state == MVM_STATE_STOPPED);
  REQUIRE(umount2(vms_path, MNT_DETACH) == 0);
  MUST(mvm_start(vm));
  MUST(mvm_destroy(vm));
  MUST(mvm_runtime_close(runtime));
}

/* ---- Snapshots, on a disk with room for some ---- */

static void make_room_for_snapshots(void) {
  REQUIRE(mount(NULL, where.state, NULL, MS_REMOUNT, "size=160m,mode=700") == 0);
}

static int entries(const char *name) {
  char path[4200];
  int count = 0;
  snprintf(path, sizeof path, "%s/%s", where.state, name);
  DIR *directory = opendir(path);
  if (directory == NULL) return 0;
  while (readdir(directory) != NULL) count++;
  closedir(directory);
  return count - 2;
}

static void make_disk(const char *path) {
  static char content[1 << 20];
  memset(content, 'x', sizeof content);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  REQUIRE(fd >= 0 && write(fd, content, sizeof content) == (ssize_t)sizeof content);
  close(fd);
}

/* With a disk that the guest may write to, which stands elsewhere. */
static mvm_vm *boot_with_disk(mvm_runtime *runtime, const char *disk) {
  mvm_vm *vm;
  char spec[12000];
  snprintf(spec, sizeof spec,
           "{\"boot-source\":{\"kernel_image_path\":\"%s/halt.elf\"},"
           "\"drives\":[{\"drive_id\":\"data\",\"path_on_host\":\"%s\",\"is_root_device\":false}],"
           "\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":20,\"track_dirty_pages\":true}}",
           where.guests, disk);
  MUST(mvm_create(runtime, "vm", spec, &vm));
  MUST(mvm_start(vm));
  return vm;
}

static void must_run(mvm_vm *vm) {
  mvm_vm_state state;
  MUST(mvm_state(vm, &state));
  REQUIRE(state == MVM_STATE_RUNNING);
}

static mvm_status take_a_snapshot(mvm_runtime *runtime, mvm_vm *vm) {
  mvm_status status = mvm_snapshot_create(vm, "tried", NULL, NULL);
  (void)runtime;
  must_run(vm); /* it was held, and goes on */
  return status;
}

static mvm_status restore_one(mvm_runtime *runtime, mvm_vm *vm) {
  mvm_vm *restored;
  mvm_status status = mvm_restore(runtime, "tried", "tried", "{\"deadline_ms\":5000}", &restored);
  (void)vm;
  REQUIRE((restored != NULL) == (status == MVM_OK));
  if (restored == NULL) return status;
  MUST(mvm_destroy(restored));
  MUST(mvm_release(restored));
  return status;
}

static mvm_status merge(mvm_runtime *runtime, mvm_vm *vm) {
  (void)vm;
  return mvm_snapshot_merge(runtime, "diff", NULL, NULL);
}

/* With more room each time, until it works. Whether the library or Firecracker runs into the end of the disk, nothing stays. */
static void on_a_full_disk(mvm_runtime *runtime, mvm_vm *vm, mvm_status (*call)(mvm_runtime *runtime, mvm_vm *vm)) {
  int failed = 0, vm_entries = entries("vms"), snapshots = entries("snapshots");
  for (unsigned long blocks = 0;; blocks += blocks / 4 + 1) {
    leave_free(blocks);
    mvm_status status = call(runtime, vm);
    if (status == MVM_OK) break;
    mvm_error error = MVM_ERROR_INIT;
    mvm_last_error(&error);
    int is_told = status == MVM_ERR_NO_RESOURCES && error.os_errno == ENOSPC;
    int is_told_by_the_vmm = status == MVM_ERR_VMM_REFUSED && strstr(error.fault_message, "os error 28") != NULL;
    if (!is_told && !is_told_by_the_vmm) fprintf(stderr, "%lu blocks: %d %s\n", blocks, error.os_errno, error.fault_message);
    REQUIRE(is_told || is_told_by_the_vmm);
    REQUIRE(entries("vms") == vm_entries && entries("snapshots") == snapshots);
    failed++;
  }
  REQUIRE(failed > 0);
  unlink(ballast);
}

static void snapshots_on_a_full_disk_leave_everything_as_it_was(const char *disk) {
  mvm_runtime *runtime;
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  mvm_vm *vm = boot_with_disk(runtime, disk);
  on_a_full_disk(runtime, vm, take_a_snapshot);
  on_a_full_disk(runtime, vm, restore_one);
  MUST(mvm_snapshot_delete(runtime, "tried"));
  MUST(mvm_snapshot_create(vm, "tried", NULL, NULL));
  MUST(mvm_snapshot_create(vm, "diff", "{\"type\":\"diff\"}", NULL));
  on_a_full_disk(runtime, vm, merge);
  leave_free(0);
  MUST(mvm_snapshot_delete(runtime, "diff")); /* what frees the disk works on a full one */
  unlink(ballast);
  MUST(restore_one(runtime, vm));
  MUST(mvm_snapshot_delete(runtime, "tried"));
  MUST(mvm_destroy(vm));
  MUST(mvm_runtime_close(runtime));
}

static char image_spec[12000];

static mvm_status create_from_an_image(mvm_runtime *runtime, mvm_vm *vm) {
  mvm_vm *created;
  mvm_status status = mvm_create(runtime, "copied", image_spec, &created);
  (void)vm;
  REQUIRE((created != NULL) == (status == MVM_OK));
  if (created == NULL) return status;
  MUST(mvm_destroy(created));
  MUST(mvm_release(created));
  return status;
}

static void a_copy_of_an_image_on_a_full_disk_leaves_nothing(const char *image) {
  mvm_runtime *runtime;
  snprintf(image_spec, sizeof image_spec,
           "{\"boot-source\":{\"kernel_image_path\":\"%s/halt.elf\"},"
           "\"mvm\":{\"rootfs\":{\"from\":\"%s\",\"size_mib\":4,\"format\":\"raw\"}}}",
           where.guests, image);
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  on_a_full_disk(runtime, NULL, create_from_an_image);
  MUST(mvm_runtime_close(runtime));
}

static void forbidden(mvm_status status) {
  mvm_error error = MVM_ERROR_INIT;
  mvm_last_error(&error);
  REQUIRE(status == MVM_ERR_PERMISSION && error.os_errno == EROFS);
}

static void read_only_snapshots_can_be_restored_and_nothing_else(const char *disk) {
  mvm_runtime *runtime;
  char path[4200];
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  mvm_vm *vm = boot_with_disk(runtime, disk);
  MUST(mvm_snapshot_create(vm, "tried", NULL, NULL));
  MUST(mvm_snapshot_create(vm, "diff", "{\"type\":\"diff\"}", NULL));
  snprintf(path, sizeof path, "%s/snapshots", where.state);
  REQUIRE(mount(path, path, NULL, MS_BIND, NULL) == 0);
  REQUIRE(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0);
  forbidden(mvm_snapshot_create(vm, "more", NULL, NULL));
  must_run(vm);
  forbidden(mvm_snapshot_merge(runtime, "diff", NULL, NULL));
  forbidden(mvm_snapshot_delete(runtime, "diff"));
  MUST(restore_one(runtime, vm));
  REQUIRE(umount2(path, MNT_DETACH) == 0);
  MUST(mvm_snapshot_delete(runtime, "diff"));
  MUST(mvm_snapshot_delete(runtime, "tried"));
  MUST(mvm_destroy(vm));
  MUST(mvm_runtime_close(runtime));
}

int main(int argc, char **argv) {
  mvm_runtime *runtime;
  char spec[8192], disk[4200];
  where = example_from(argc, argv);
  example_spec(&where, "halt", spec, sizeof spec);
  if (!has_a_disk_of_its_own()) {
    printf("skip  a_full_disk: this user may not mount one\n");
    return 0;
  }
  snprintf(ballast, sizeof ballast, "%s/ballast", where.state);
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  a_creation_on_a_full_disk_leaves_nothing(runtime, spec);
  printf("ok    a_creation_on_a_full_disk_leaves_nothing\n");
  what_frees_the_disk_works_on_a_full_one(runtime, spec);
  printf("ok    what_frees_the_disk_works_on_a_full_one\n");
  MUST(mvm_runtime_close(runtime));
  an_owner_on_a_full_disk_takes_over_all_the_same(spec);
  printf("ok    an_owner_on_a_full_disk_takes_over_all_the_same\n");
  a_read_only_disk_is_told_and_changes_nothing(spec);
  printf("ok    a_read_only_disk_is_told_and_changes_nothing\n");
  make_room_for_snapshots();
  snprintf(disk, sizeof disk, "%s.disk", where.state);
  make_disk(disk);
  snapshots_on_a_full_disk_leave_everything_as_it_was(disk);
  printf("ok    snapshots_on_a_full_disk_leave_everything_as_it_was\n");
  a_copy_of_an_image_on_a_full_disk_leaves_nothing(disk);
  printf("ok    a_copy_of_an_image_on_a_full_disk_leaves_nothing\n");
  read_only_snapshots_can_be_restored_and_nothing_else(disk);
  printf("ok    read_only_snapshots_can_be_restored_and_nothing_else\n");
  unlink(disk);
  umount2(where.state, MNT_DETACH);
  return 0;
}
