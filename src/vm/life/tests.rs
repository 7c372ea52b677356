use super::*;
use proptest::prelude::*;

const KILLED: ExitStatus = ExitStatus::Signal(9);

fn running() -> Life<u32> {
    let mut life = Life::being_created();
    life.launched(1);
    life.guest_is(Guest::NotStarted);
    life.appeared(EventKind::Created);
    life.guest_is(Guest::Running);
    life
}

#[test]
fn a_vm_is_told_of_when_it_is_there_and_not_before() {
    let mut life = Life::being_created();
    life.launched(1);
    assert_eq!(life.guest_is(Guest::NotStarted), []);
    assert_eq!(life.appeared(EventKind::Created), [EventKind::Created]);
    assert_eq!(life.guest_is(Guest::Running), [EventKind::Started]);
    assert_eq!((life.state(), life.presence()), (State::Running, Presence::Present));
}

#[test]
fn an_end_before_the_vm_was_there_is_told_when_it_is() {
    let mut life = Life::being_created();
    life.launched(1);
    life.guest_is(Guest::NotStarted);
    assert_eq!(life.ended(KILLED, EndedBy::Itself), (Some(1), vec![]));
    assert_eq!(life.appeared(EventKind::Created), [EventKind::Created, EventKind::Exited(KILLED)]);
}

#[test]
fn pausing_and_resuming_are_told_once() {
    let mut life = running();
    assert_eq!(life.guest_is(Guest::Paused), [EventKind::Paused]);
    assert_eq!(life.guest_is(Guest::Paused), []);
    assert_eq!(life.guest_is(Guest::Running), [EventKind::Resumed]);
    assert_eq!(life.guest_is(Guest::Running), []);
}

#[test]
fn a_start_that_fails_leaves_the_vm_as_it_was() {
    let mut life = running();
    life.ended(ExitStatus::Code(1), EndedBy::Itself);
    let before = life.rest().unwrap();
    life.launched(2);
    assert_eq!((life.state(), life.exit()), (State::Failed, None));
    life.guest_is(Guest::NotStarted);
    assert_eq!(life.launch_undone(before), Some(2));
    assert_eq!((life.state(), life.exit()), (State::Failed, Some(ExitStatus::Code(1))));
}

#[test]
fn who_ended_a_vmm_decides_what_that_makes_of_the_vm() {
    let ended = |exit, by| {
        let mut life = running();
        life.ended(exit, by);
        life.state()
    };
    assert_eq!(ended(ExitStatus::Code(0), EndedBy::Itself), State::Stopped);
    assert_eq!(ended(ExitStatus::Code(1), EndedBy::Itself), State::Failed);
    assert_eq!(ended(KILLED, EndedBy::Itself), State::Failed);
    assert_eq!(ended(KILLED, EndedBy::Library), State::Stopped);
    assert_eq!(ended(KILLED, EndedBy::LostPager), State::Failed);
    assert_eq!(ended(ExitStatus::ReapedByHost, EndedBy::Itself), State::Stopped);
}

#[test]
fn what_an_adopted_guest_does_is_learned_and_not_told() {
    let mut life = Life::adopted(1);
    assert!(life.is_in_doubt());
    assert_eq!(life.guest_is(Guest::Paused), []);
    assert!(!life.is_in_doubt());
    assert_eq!(life.guest_is(Guest::Running), [EventKind::Resumed]);
}

/// Anything that can be learned of a VM, in any order.
#[derive(Clone, Copy, Debug)]
enum Fact {
    Launched,
    GuestIs(Guest),
    Doubted,
    Ended(EndedBy),
    Appeared,
    Destroyed,
}

fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let guest = prop_oneof![Just(Guest::NotStarted), Just(Guest::Running), Just(Guest::Paused)];
    let by = prop_oneof![Just(EndedBy::Itself), Just(EndedBy::Library), Just(EndedBy::LostPager)];
    let fact = prop_oneof![
        Just(Fact::Launched),
        guest.prop_map(Fact::GuestIs),
        Just(Fact::Doubted),
        by.prop_map(Fact::Ended),
        Just(Fact::Appeared),
        Just(Fact::Destroyed),
    ];
    proptest::collection::vec(fact, 0..40)
}

proptest! {
    #[test]
    fn whatever_happens_the_state_fits_what_runs_and_each_end_is_told_once(facts in facts()) {
        let (mut life, mut next, mut launched, mut returned) = (Life::being_created(), 0_u32, 0, 0);
        for fact in facts {
            let told = match fact {
                Fact::Launched if life.running().is_none() => {
                    (next, launched) = (next + 1, launched + 1);
                    life.launched(next);
                    vec![]
                }
                Fact::Launched => vec![],
                Fact::GuestIs(guest) => life.guest_is(guest),
                Fact::Doubted => { life.doubted(); vec![] }
                Fact::Ended(by) => {
                    let (held, told) = life.ended(KILLED, by);
                    returned += u32::from(held.is_some());
                    prop_assert!(held.is_some() || told.is_empty());
                    told
                }
                Fact::Appeared => life.appeared(EventKind::Created),
                Fact::Destroyed => {
                    let (held, told) = life.destroyed();
                    returned += u32::from(held.is_some());
                    told
                }
            };
            let up = matches!(life.state(), State::Created | State::Running | State::Paused);
            prop_assert!(!up || life.running().is_some());
            prop_assert!(life.running().is_none() || life.exit().is_none());
            prop_assert!(!life.is_in_doubt() || up);
            prop_assert!(told.len() <= 2);
            prop_assert_eq!(launched - returned, u32::from(life.running().is_some()));
        }
    }
}
