/* Boots one microVM, and creates others from its snapshot: clones with their own disk and metadata, and a warm pool. */
#include "example.h"
#include <poll.h>
#include <unistd.h>

enum { CLONES = 4 };

static void make_disk(const char *path) {
  FILE *disk = fopen(path, "wb");
  if (disk == NULL || ftruncate(fileno(disk), 1 << 20) != 0 || fclose(disk) != 0) {
    perror(path);
    exit(1);
  }
}

/* A guest that has booted and got ready, frozen; the VM itself is not needed any more. */
static void freeze(const struct example *where, mvm_runtime *runtime, const char *snapshot, const char *devices) {
  char spec[16400];
  mvm_vm *vm;
  example_spec(where, "obey", spec, sizeof spec);
  strcpy(strrchr(spec, '}'), devices); /* the devices' sections end the object */
  MUST(mvm_create(runtime, "template", spec, &vm));
  MUST(mvm_start(vm));
  MUST(mvm_snapshot_create(vm, snapshot, NULL, NULL));
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
}

static void end(mvm_vm *vm) {
  mvm_shutdown_outcome outcome;
  MUST(mvm_shutdown(vm, 30000, 0, &outcome));
  printf("ended %s\n", outcome == MVM_SHUTDOWN_GRACEFUL ? "gracefully: the guest hears us" : "by force");
  MUST(mvm_destroy(vm));
  MUST(mvm_release(vm));
}

/* A TAP device each, whose names are numbered, a copy of the disk each, and what tells them what they are for. */
static void clone_with_metadata(const struct example *where, mvm_runtime *runtime, const char *disk) {
  char path[4200];
  const char *options =
      "{\"ids\":[\"web-a\",\"web-b\",\"db-a\",\"db-b\"],\"mmds_placeholders\":\"filled_in\","
      "\"network_overrides\":[{\"iface_id\":\"eth0\",\"host_dev_name\":\"mvmclone{n}\"}],"
      "\"each\":[{\"mmds\":{\"role\":\"web\",\"name\":\"{id}\"}},{\"mmds\":{\"role\":\"web\",\"name\":\"{id}\"}},"
      "{\"mmds\":{\"role\":\"db\",\"name\":\"{id}\"}},{\"mmds\":{\"role\":\"db\",\"name\":\"{id}\"}}]}";
  char devices[8192], *metadata;
  mvm_vm *vms[CLONES];
  snprintf(devices, sizeof devices,
           ",\"drives\":[{\"drive_id\":\"data\",\"path_on_host\":%s,\"is_root_device\":false}],"
           "\"network-interfaces\":[{\"iface_id\":\"eth0\",\"host_dev_name\":\"mvmclone0\"}],"
           "\"mmds-config\":{\"network_interfaces\":[\"eth0\"],\"version\":\"V2\"}}",
           json_string(path, sizeof path, disk));
  freeze(where, runtime, "with-metadata", devices);
  mvm_status status = mvm_clone(runtime, "with-metadata", CLONES, options, vms);
  if (status == MVM_ERR_UNSUPPORTED)
    tell("mvm_clone"); /* before 1.12 there is no TAP device for each */
  else
    must_be_ok(status, "mvm_clone");
  for (int i = 0; i < CLONES && status == MVM_OK; i++) {
    MUST(mvm_request(vms[i], "GET", "/mmds", NULL, &metadata));
    printf("the clone's guest can read: %s\n", metadata);
    mvm_string_free(metadata);
    end(vms[i]);
  }
  MUST(mvm_snapshot_delete(runtime, "with-metadata"));
}

static void await_full(mvm_pool *pool) {
  mvm_pool_counts counts = MVM_POOL_COUNTS_INIT;
  for (MUST(mvm_pool_count(pool, &counts)); counts.ready < counts.pool_size; MUST(mvm_pool_count(pool, &counts)))
    poll(NULL, 0, 1);
  printf("the pool: %u wait, %llu were taken\n", (unsigned)counts.ready, (unsigned long long)counts.taken);
}

/* Its members are restored and paused before they are needed. To take one costs one request. */
static void take_from_a_pool(const struct example *where, mvm_runtime *runtime, const char *disk, const char *other) {
  char devices[8192], options[4400], path[4200];
  mvm_pool *pool;
  mvm_vm *vm;
  snprintf(devices, sizeof devices,
           ",\"drives\":[{\"drive_id\":\"data\",\"path_on_host\":%s,\"is_root_device\":false}]}",
           json_string(path, sizeof path, disk));
  freeze(where, runtime, "idle", devices);
  MUST(mvm_pool_open(runtime, "warm", "{\"snapshot\":\"idle\",\"size\":2}", &pool));
  await_full(pool);
  snprintf(options, sizeof options, "{\"drives\":[{\"drive_id\":\"data\",\"path_on_host\":%s}]}",
           json_string(path, sizeof path, other));
  MUST(mvm_pool_take(pool, "tenant-1", options, &vm)); /* with the tenant's disk */
  end(vm);
  await_full(pool); /* it has filled itself again */
  MUST(mvm_pool_destroy(pool));
  MUST(mvm_pool_release(pool));
  MUST(mvm_snapshot_delete(runtime, "idle"));
}

int main(int argc, char **argv) {
  struct example where = example_from(argc, argv);
  int is_simulator = strstr(where.firecracker, "firecracker-sim") != NULL;
  mvm_runtime *runtime;
  char disk[4200], other[4200];
  MUST(mvm_runtime_open(where.state, where.options, &runtime));
  snprintf(disk, sizeof disk, "%s/disk", where.state);
  snprintf(other, sizeof other, "%s/other-disk", where.state);
  make_disk(disk);
  make_disk(other);

  if (is_simulator || geteuid() == 0)
    clone_with_metadata(&where, runtime, disk);
  else
    printf("clones with metadata need TAP devices, which Firecracker makes for root alone\n");
  take_from_a_pool(&where, runtime, disk, other);

  printf("left: ");
  int left = print_vms(runtime);
  MUST(mvm_runtime_close(runtime));
  unlink(disk);
  unlink(other);
  return left;
}
