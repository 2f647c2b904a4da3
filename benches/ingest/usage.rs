//! CPU time and memory of processes with all their descendants, from Linux's /proc.
//! On other systems there is nothing to read, and the figures are left out.

use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// The unit of times in /proc/PID/stat: USER_HZ is 100 on every architecture in use.
const TICK: Duration = Duration::from_millis(10);

/// Time between two looks at the memory.
const INTERVAL: Duration = Duration::from_millis(500);

/// Processes to watch, and what to call them.
#[derive(Clone)]
pub struct Watch {
    pub name: String,
    pub pids: Vec<u32>,
}

impl Watch {
    /// Reads `NAME=PID`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("expected NAME=PID")?;
        let pid = pid.parse().map_err(|_| format!("{pid} is no process id"))?;
        Ok(Self { name: name.to_owned(), pids: vec![pid] })
    }
}

/// What a watched process and its descendants took.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu: Duration,
    /// Bytes; pages shared by several processes are divided among them.
    pub peak_memory: u64,
}

/// Watches from `begin` to `end`, blocking. `None` where there is no /proc.
pub fn during(watches: &[Watch], begin: Instant, end: Instant) -> Option<Vec<Usage>> {
    let wait_until = |time: Instant| {
        thread::sleep(time.saturating_duration_since(Instant::now()));
    };
    wait_until(begin);
    let before = Processes::read()?;
    let mut usages = vec![Usage::default(); watches.len()];
    let mut next = begin;
    while next < end {
        let processes = Processes::read()?;
        let memory = processes.sums(watches, |pid, _| memory(pid));
        for (usage, memory) in usages.iter_mut().zip(memory) {
            usage.peak_memory = usage.peak_memory.max(memory);
        }
        next += INTERVAL;
        wait_until(next.min(end));
    }
    let after = Processes::read()?;
    let ticks = |processes: &Processes| processes.sums(watches, |_, process| process.ticks);
    let spent = ticks(&after).into_iter().zip(ticks(&before));
    for (usage, (after, before)) in usages.iter_mut().zip(spent) {
        let ticks = u32::try_from(after.saturating_sub(before)).unwrap_or(u32::MAX);
        usage.cpu = TICK * ticks;
    }
    Some(usages)
}

/// All processes of the system at one moment.
struct Processes(HashMap<u32, Process>);

struct Process {
    parent: u32,
    /// CPU time of the process and of the children it has waited for.
    ticks: u64,
}

impl Processes {
    fn read() -> Option<Self> {
        let processes: HashMap<_, _> = fs::read_dir("/proc")
            .ok()?
            .filter_map(|entry| {
                let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
                Some((pid, Process::read(pid)?))
            })
            .collect();
        (!processes.is_empty()).then_some(Self(processes))
    }

    /// For each watch, the sum of `figure` over its process and the descendants. A process whose
    /// ancestors are watched under two names counts for the nearer: Postgres is the gateway's
    /// child, but not its cost.
    fn sums(&self, watches: &[Watch], figure: impl Fn(u32, &Process) -> u64) -> Vec<u64> {
        let mut sums = vec![0; watches.len()];
        for (&pid, process) in &self.0 {
            if let Some(watch) = self.nearest(pid, watches) {
                sums[watch] += figure(pid, process);
            }
        }
        sums
    }

    fn nearest(&self, mut pid: u32, watches: &[Watch]) -> Option<usize> {
        loop {
            if let Some(found) = watches.iter().position(|watch| watch.pids.contains(&pid)) {
                return Some(found);
            }
            pid = self.0.get(&pid)?.parent;
        }
    }
}

impl Process {
    /// `None` if it has ended.
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in brackets, which may hold anything.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let parent = u32::try_from(number(1)?).ok()?;
        // utime, stime, cutime, cstime
        let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
        Some(Self { parent, ticks })
    }
}

/// Bytes of memory of one process, shared pages in proportion; the resident set where that is not
/// told.
fn memory(pid: u32) -> u64 {
    let kilobytes = |file: &str, key: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(key))?;
        value.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let kilobytes = kilobytes("smaps_rollup", "Pss:").or_else(|| kilobytes("status", "VmRSS:"));
    kilobytes.unwrap_or_default() * 1024
}
