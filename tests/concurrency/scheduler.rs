//! Who runs next, and how a failure is replayed.
//!
//! It owns one scheduler with three ways to choose: a depth-first search of every schedule within
//! a bound of preemptions and of wake-ups for no reason; a seed; a list of choices to replay. It
//! knows nothing of logs. Invariants: the same choices give the same execution (a search that finds
//! otherwise fails); while [`held`], the thread that runs goes on, and nothing is explored.
//!
//! Why not shuttle's own search: without a bound it never ends, as a parked thread may wake for no
//! reason any number of times, and with threads of this length it would not end soon without them.
//! Why preemptions are bounded and not steps: a schedule in which threads change only where one has
//! to wait costs nothing, so the whole length of a case is covered.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Once;

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::dice::Dice;

/// What a thread that panics on purpose says.
pub const ON_PURPOSE: &str = "a panic on purpose";

const COMMAND: &str =
    "RUSTFLAGS=\"--cfg shuttle\" cargo test --release --target-dir target/shuttle --test concurrency";

thread_local! {
    static NOW: RefCell<Now> = RefCell::default();
}

/// The execution that is under way on this thread of the system.
#[derive(Default)]
struct Now {
    held: u32,
    seed: u64,
    step: usize,
    /// Where the choice was not the usual one: which step, which choice.
    choices: Vec<(usize, usize)>,
    /// A hash of every step, to compare executions by.
    trace: u64,
}

/// Runs `body` without letting anyone else in, save where it has to wait.
pub fn held<T>(body: impl FnOnce() -> T) -> T {
    struct Release;
    impl Drop for Release {
        fn drop(&mut self) {
            NOW.with_borrow_mut(|now| now.held = now.held.saturating_sub(1));
        }
    }
    NOW.with_borrow_mut(|now| now.held += 1);
    let _release = Release;
    body()
}

/// The seed of this execution.
pub fn seed() -> u64 {
    NOW.with_borrow(|now| now.seed)
}

/// A hash of all scheduling so far.
pub fn trace() -> u64 {
    NOW.with_borrow(|now| now.trace)
}

/// What a search may do at most.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    pub preemptions: u32,
    /// Wake-ups for no reason, which park is allowed, and time-outs.
    pub wakes: u32,
    pub schedules: usize,
}

/// One place where the search has chosen.
struct Level {
    /// The choices that the bound allows, as bits.
    allowed: u32,
    chosen: u32,
}

enum Strategy {
    Search { bound: Bound, levels: Vec<Level>, found: Rc<RefCell<Found>>, preemptions: u32, wakes: u32 },
    Seeds { next: u64, left: u64, dice: Dice, manner: Manner },
    Replay { choices: BTreeMap<usize, usize>, done: bool },
}

/// How a search went.
#[derive(Default)]
struct Found {
    schedules: usize,
    complete: bool,
    longest: usize,
}

/// How a seed chooses.
enum Manner {
    /// Anyone, at every step.
    Uniform,
    /// Mostly the one that runs.
    Steady,
    /// The one with the highest priority; some steps take the running thread's away (probabilistic
    /// concurrency testing).
    Priorities { of: BTreeMap<usize, u64>, changes: Vec<usize> },
}

struct Explorer(Strategy);

impl Scheduler for Explorer {
    fn new_execution(&mut self) -> Option<Schedule> {
        let seed = match &mut self.0 {
            Strategy::Search { bound, levels, found, preemptions, wakes } => {
                let mut found = found.borrow_mut();
                if found.schedules > 0 {
                    found.longest = found.longest.max(levels.len());
                    while levels.last().is_some_and(|level| level.allowed >> level.chosen <= 1) {
                        levels.pop();
                    }
                    let Some(level) = levels.last_mut() else {
                        found.complete = true;
                        return None;
                    };
                    let rest = level.allowed >> (level.chosen + 1);
                    level.chosen += 1 + rest.trailing_zeros();
                }
                if found.schedules >= bound.schedules {
                    return None;
                }
                found.schedules += 1;
                (*preemptions, *wakes) = (0, 0);
                0
            }
            Strategy::Seeds { next, left, dice, manner } => {
                *left = left.checked_sub(1)?;
                let seed = *next;
                *next += 1;
                *dice = Dice::new(seed);
                *manner = match dice.roll(3) {
                    0 => Manner::Uniform,
                    1 => Manner::Steady,
                    _ => {
                        let changes = (0..1 + dice.roll(4)).map(|_| dice.roll(1500) as usize).collect();
                        Manner::Priorities { of: BTreeMap::new(), changes }
                    }
                };
                seed
            }
            Strategy::Replay { done, .. } => {
                if std::mem::replace(done, true) {
                    return None;
                }
                0
            }
        };
        NOW.set(Now { seed, ..Now::default() });
        Some(Schedule::new(seed))
    }

    fn next_task(&mut self, tasks: &[&Task], current: Option<TaskId>, yields: bool) -> Option<TaskId> {
        let current = current.map(usize::from);
        let goes_on = current.filter(|_| !yields);
        let mut runnable: Vec<usize> =
            tasks.iter().filter(|task| task.runnable()).map(|task| task.id().into()).collect();
        // Who yields waits for somebody: to let it spin adds nothing, and a search would never end.
        if yields && runnable.len() > 1 {
            runnable.retain(|id| Some(*id) != current);
        }
        // The usual choice: who runs goes on; where it cannot, the next one in turn.
        let usual = match (goes_on.filter(|id| runnable.contains(id)), current) {
            (Some(current), _) => Some(current),
            (None, Some(current)) => runnable.iter().copied().find(|id| *id > current),
            (None, None) => None,
        };
        let usual = usual.or(runnable.first().copied())?;
        NOW.with_borrow_mut(|now| {
            let next = if now.held > 0 { usual } else { self.choose(now, tasks, &runnable, usual, goes_on) };
            now.trace = now.trace.wrapping_mul(0x0100_0000_01B3) ^ (next as u64 + 1);
            Some(TaskId::from(next))
        })
    }

    fn next_u64(&mut self) -> u64 {
        unreachable!("nothing here draws from shuttle")
    }
}

impl Explorer {
    fn choose(
        &mut self,
        now: &mut Now,
        tasks: &[&Task],
        runnable: &[usize],
        usual: usize,
        goes_on: Option<usize>,
    ) -> usize {
        let mut order = vec![usual];
        order.extend(runnable.iter().copied().filter(|id| *id != usual));
        let awake = order.len();
        // Parked ones, which may wake for no reason.
        order.extend(tasks.iter().filter(|task| !task.runnable()).map(|task| usize::from(task.id())));
        let step = now.step;
        now.step += 1;
        let would_go_on = goes_on == Some(usual);
        let chosen = match &mut self.0 {
            Strategy::Search { bound, levels, preemptions, wakes, .. } => {
                let mut allowed = 1u32;
                for choice in 1..order.len().min(32) {
                    let may_preempt = !would_go_on || *preemptions < bound.preemptions;
                    if may_preempt && (choice < awake || *wakes < bound.wakes) {
                        allowed |= 1 << choice;
                    }
                }
                if levels.len() == step {
                    levels.push(Level { allowed, chosen: 0 });
                }
                let level = &levels[step];
                assert_eq!(level.allowed, allowed, "step {step} is not as it was: not deterministic");
                let chosen = level.chosen as usize;
                *preemptions += u32::from(chosen > 0 && would_go_on);
                *wakes += u32::from(chosen >= awake);
                chosen
            }
            Strategy::Seeds { dice, manner, .. } => {
                let anyone = |dice: &mut Dice| {
                    let sides = if dice.roll(16) == 0 { order.len() } else { awake };
                    dice.roll(sides as u64) as usize
                };
                match manner {
                    Manner::Uniform => anyone(dice),
                    Manner::Steady if dice.roll(12) > 0 => 0,
                    Manner::Steady => anyone(dice),
                    Manner::Priorities { of, changes } => {
                        for id in &order {
                            of.entry(*id).or_insert_with(|| 1000 + dice.roll(1 << 20));
                        }
                        if changes.contains(&step) {
                            of.insert(usual, 900 - step as u64 % 900);
                        }
                        // Nobody spins for ever on the highest priority.
                        if goes_on.is_none() {
                            let lowest = of.values().min().copied().unwrap_or(1);
                            of.insert(usual, lowest.saturating_sub(1));
                        }
                        (0..awake).max_by_key(|choice| of[&order[*choice]]).unwrap_or(0)
                    }
                }
            }
            Strategy::Replay { choices, .. } => choices.get(&step).copied().unwrap_or(0),
        };
        if chosen > 0 {
            now.choices.push((step, chosen));
        }
        *order.get(chosen).expect("a choice of a replay that is not there: the code has changed")
    }
}

fn run(strategy: Strategy, body: impl Fn() + Send + Sync + 'static) -> std::thread::Result<usize> {
    static QUIET: Once = Once::new();
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(200_000);
    config.silence_warnings = true;
    QUIET.call_once(|| {
        // After shuttle has set its own hook: panics on purpose are not worth a word.
        Runner::new(Explorer(Strategy::Replay { choices: BTreeMap::new(), done: false }), config.clone())
            .run(|| ());
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&ON_PURPOSE) {
                hook(info);
            }
        }));
    });
    catch_unwind(AssertUnwindSafe(|| Runner::new(Explorer(strategy), config).run(body)))
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}: {value:?} is no number")))
}

fn replayed() -> bool {
    std::env::var_os("STONELOG_SCHEDULE").is_some() || std::env::var_os("STONELOG_SCHEDULE_SEED").is_some()
}

fn test_name() -> String {
    std::thread::current().name().unwrap_or_default().to_string()
}

/// Tries every schedule within the bound, which the environment can widen.
pub fn search(bound: Bound, body: impl Fn() + Send + Sync + 'static) {
    let name = test_name();
    if let Ok(text) = std::env::var("STONELOG_SCHEDULE") {
        let pairs = text.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
            let (step, choice) = pair.split_once(':').expect("step:choice");
            (step.parse().expect("a step"), choice.parse().expect("a choice"))
        });
        let strategy = Strategy::Replay { choices: pairs.collect(), done: false };
        match run(strategy, body) {
            Ok(_) => println!("{name}: this schedule passes"),
            Err(panic) => resume_unwind(panic),
        }
        return;
    }
    if replayed() {
        return;
    }
    let bound = Bound {
        preemptions: variable("STONELOG_PREEMPTIONS").unwrap_or(bound.preemptions),
        schedules: variable("STONELOG_SCHEDULES_AT_MOST").unwrap_or(bound.schedules),
        ..bound
    };
    let found = Rc::<RefCell<Found>>::default();
    let strategy =
        Strategy::Search { bound, levels: Vec::new(), found: found.clone(), preemptions: 0, wakes: 0 };
    let outcome = run(strategy, body);
    let Found { schedules, complete, longest } = *found.borrow();
    if let Err(panic) = outcome {
        let choices = NOW.with_borrow(|now| now.choices.clone());
        let choices: Vec<String> = choices.iter().map(|(step, choice)| format!("{step}:{choice}")).collect();
        println!("{name} failed with schedule {schedules} of its search. Replay it with");
        println!("STONELOG_SCHEDULE={} {COMMAND} {name} -- --exact --nocapture", choices.join(","));
        resume_unwind(panic);
    }
    let extent = if complete { "all there are" } else { "NOT all there are" };
    println!(
        "{name}: {schedules} schedules, {extent} with {} preemptions and {} idle wake-ups at most; {longest} steps",
        bound.preemptions, bound.wakes,
    );
}

/// Runs as many seeds, times `STONELOG_SCHEDULES`; says how many.
pub fn sample(count: u64, body: impl Fn() + Send + Sync + 'static) -> u64 {
    let name = test_name();
    if std::env::var_os("STONELOG_SCHEDULE").is_some() {
        return 0;
    }
    let (first, count) = match variable::<u64>("STONELOG_SCHEDULE_SEED") {
        Some(seed) => (seed, 1),
        None => (
            variable("STONELOG_FIRST_SEED").unwrap_or(1),
            count * variable("STONELOG_SCHEDULES").unwrap_or(1),
        ),
    };
    let strategy =
        Strategy::Seeds { next: first, left: count, dice: Dice::new(first), manner: Manner::Uniform };
    match run(strategy, body) {
        Ok(_) => println!("{name}: {count} seeds from {first}"),
        Err(panic) => {
            println!("{name} failed with seed {}. Replay it with", seed());
            println!("STONELOG_SCHEDULE_SEED={} {COMMAND} {name} -- --exact --nocapture", seed());
            resume_unwind(panic);
        }
    }
    count
}

/// Runs one seed, and gives the hash of its schedule.
pub fn trace_of(seed: u64, body: impl Fn() + Send + Sync + 'static) -> u64 {
    let strategy = Strategy::Seeds { next: seed, left: 1, dice: Dice::new(seed), manner: Manner::Uniform };
    run(strategy, body).unwrap_or_else(|panic| resume_unwind(panic));
    trace()
}
