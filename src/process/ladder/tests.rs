//! Every edge of the ladder, on a clock that does not tick by itself.

use super::*;
use proptest::prelude::*;

const GRACE: Duration = Duration::from_millis(2000);
const MS: fn(u64) -> Duration = Duration::from_millis;

fn plan(first: Rung) -> Plan {
    Plan { first, grace: GRACE, poll: None, kill_allowance: MS(5000) }
}

/// A process that ends when a rung is asked, some time later, or never.
struct Stubborn {
    exits: Vec<(Rung, Duration, ExitStatus)>,
    guest: Asked,
}

/// Climbs with a simulated clock; returns the last step, and every sleep on the way.
fn climb(plan: Plan, process: &Stubborn) -> (Step, Vec<Duration>) {
    let (mut now, mut ends) = (Duration::ZERO, None::<(Duration, ExitStatus)>);
    let (mut ladder, mut slept) = (Ladder::new(plan), Vec::new());
    loop {
        let exit = ends.filter(|(at, _)| *at <= now).map(|(_, exit)| exit);
        match ladder.next(now, exit) {
            Step::Ask(rung) => {
                let asked = if rung == Rung::Guest { process.guest } else { Asked::Delivered };
                ladder.answered(rung, now, asked);
                let exit = process.exits.iter().find(|(on, ..)| *on == rung && asked == Asked::Delivered);
                let end = exit.map(|(_, after, exit)| (now + *after, *exit));
                ends = ends.into_iter().chain(end).min_by_key(|(at, _)| *at);
            }
            Step::Sleep(at_most) => {
                assert!(!at_most.is_zero(), "a sleep of nothing is a busy loop");
                slept.push(at_most);
                let woken =
                    ends.map_or(now.saturating_add(at_most), |(at, _)| at.min(now.saturating_add(at_most)));
                now = woken;
            }
            over => return (over, slept),
        }
    }
}

fn report(plan: Plan, process: &Stubborn) -> Report {
    match climb(plan, process).0 {
        Step::Done(report) => report,
        other => panic!("the ladder ended with {other:?}"),
    }
}

fn ends_on(rung: Rung, after: Duration, exit: ExitStatus) -> Stubborn {
    Stubborn { exits: vec![(rung, after, exit)], guest: Asked::Delivered }
}

#[test]
fn a_process_that_has_ended_is_not_asked() {
    let mut ladder = Ladder::new(plan(Rung::Guest));
    let Step::Done(report) = ladder.next(Duration::ZERO, Some(ExitStatus::Code(0))) else { panic!("asked") };
    assert_eq!((report.outcome, report.rung), (Outcome::AlreadyExited, None));
}

#[test]
fn a_guest_that_powers_off_is_graceful() {
    let report = report(plan(Rung::Guest), &ends_on(Rung::Guest, MS(700), ExitStatus::Code(0)));
    assert_eq!((report.outcome, report.rung), (Outcome::Graceful, Some(Rung::Guest)));
    assert_eq!(report.elapsed, MS(700));
}

#[test]
fn a_guest_that_does_not_listen_is_forced_when_the_window_closes() {
    let report = report(plan(Rung::Guest), &ends_on(Rung::Terminate, MS(4), ExitStatus::Signal(15)));
    assert_eq!((report.outcome, report.rung), (Outcome::Forced, Some(Rung::Terminate)));
    assert_eq!(report.elapsed, GRACE + MS(4));
}

#[test]
fn a_vmm_that_ignores_sigterm_too_is_killed_after_the_allowance() {
    let report = report(plan(Rung::Guest), &ends_on(Rung::Kill, MS(1), ExitStatus::Signal(9)));
    assert_eq!((report.outcome, report.rung), (Outcome::Forced, Some(Rung::Kill)));
    assert_eq!(report.elapsed, GRACE + TERMINATE_ALLOWANCE + MS(1));
}

#[test]
fn a_guest_that_cannot_be_asked_leaves_the_whole_window_to_sigterm() {
    let process =
        Stubborn { guest: Asked::Unavailable, ..ends_on(Rung::Terminate, MS(900), ExitStatus::Code(0)) };
    let report = report(plan(Rung::Guest), &process);
    assert_eq!((report.outcome, report.rung), (Outcome::Graceful, Some(Rung::Terminate)));
    assert_eq!(report.asked[0].2, Asked::Unavailable);
}

#[test]
fn without_the_guest_it_is_sigterm_then_the_window_then_sigkill() {
    let report = report(plan(Rung::Terminate), &ends_on(Rung::Kill, MS(1), ExitStatus::Signal(9)));
    assert_eq!(report.outcome, Outcome::Forced);
    let rungs: Vec<_> = report.asked.iter().map(|(rung, at, _)| (*rung, *at)).collect();
    assert_eq!(rungs, [(Rung::Terminate, MS(0)), (Rung::Kill, GRACE)]);
}

#[test]
fn no_grace_goes_straight_to_sigkill() {
    let plan = Plan { grace: Duration::ZERO, ..plan(Rung::Guest) };
    let report = report(plan, &ends_on(Rung::Kill, MS(1), ExitStatus::Signal(9)));
    assert_eq!((report.outcome, report.asked.len()), (Outcome::Forced, 1));
}

#[test]
fn somebody_elses_sigkill_is_not_graceful() {
    let report = report(plan(Rung::Guest), &ends_on(Rung::Guest, MS(5), ExitStatus::Signal(9)));
    assert_eq!(report.outcome, Outcome::Forced);
}

#[test]
fn what_outlives_sigkill_is_stuck_and_not_a_hang() {
    let (last, slept) = climb(plan(Rung::Terminate), &Stubborn { exits: vec![], guest: Asked::Delivered });
    assert_eq!(last, Step::Stuck);
    assert_eq!(slept.iter().sum::<Duration>(), GRACE + MS(5000));
}

#[test]
fn no_sleep_is_longer_than_the_poll_interval() {
    let plan = Plan { poll: Some(MS(50)), ..plan(Rung::Terminate) };
    let (_, slept) = climb(plan, &ends_on(Rung::Kill, MS(1), ExitStatus::Signal(9)));
    assert!(slept.iter().all(|sleep| *sleep <= MS(50)), "{slept:?}");
}

#[test]
fn a_poll_interval_longer_than_the_window_does_not_stretch_it() {
    let plan = Plan { poll: Some(MS(60_000)), ..plan(Rung::Terminate) };
    let report = report(plan, &ends_on(Rung::Kill, MS(1), ExitStatus::Signal(9)));
    assert_eq!(report.elapsed, GRACE + MS(1));
}

#[test]
fn the_longest_grace_there_is_does_not_overflow() {
    let plan = Plan { grace: MS(u64::MAX), poll: Some(MS(u64::MAX)), ..plan(Rung::Terminate) };
    let report = report(plan, &ends_on(Rung::Terminate, MS(3), ExitStatus::Code(0)));
    assert_eq!((report.outcome, report.elapsed), (Outcome::Graceful, MS(3)));
}

proptest! {
    #[test]
    fn whatever_the_times_the_ladder_ends_and_tells_the_truth(
        guest in any::<bool>(), grace in 0_u64..5000, poll in proptest::option::of(1_u64..5000),
        guest_answers in any::<bool>(), guest_ends in proptest::option::of(0_u64..8000),
        term_ends in proptest::option::of(0_u64..8000), kill_ends in proptest::option::of(0_u64..8000),
    ) {
        let first = if guest { Rung::Guest } else { Rung::Terminate };
        let plan = Plan { first, grace: MS(grace), poll: poll.map(MS), kill_allowance: MS(5000) };
        let exits = [(Rung::Guest, guest_ends, ExitStatus::Code(0)), (Rung::Terminate, term_ends, ExitStatus::Signal(15)),
            (Rung::Kill, kill_ends, ExitStatus::Signal(9))];
        let exits = exits.iter().filter_map(|(rung, at, exit)| at.map(|at| (*rung, MS(at), *exit))).collect();
        let guest = if guest_answers { Asked::Delivered } else { Asked::Unavailable };
        match climb(plan, &Stubborn { exits, guest }).0 {
            Step::Done(report) => {
                prop_assert_ne!(report.outcome, Outcome::AlreadyExited);
                if report.outcome == Outcome::Graceful {
                    prop_assert!(report.elapsed <= plan.grace);
                    prop_assert!(report.exit != ExitStatus::Signal(9));
                }
                prop_assert!(report.elapsed <= plan.grace + TERMINATE_ALLOWANCE + plan.kill_allowance);
            }
            Step::Stuck => prop_assert!(kill_ends.is_none_or(|at| at > 5000)),
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
