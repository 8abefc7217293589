//! Who is running, as `/proc` shows it.

use std::io;

/// A process, as others see it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// It has ended and only waits to be collected.
    pub(crate) is_zombie: bool,
    pub(crate) command_line: Vec<u8>,
    /// An error when this user may not see it.
    pub(crate) environment: io::Result<Vec<u8>>,
}

/// Everything that runs on this machine.
pub(crate) fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| look_at(name.parse().ok()?)).collect()
}

fn look_at(pid: i32) -> Option<Process> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // proc(5): after the name in parentheses come state, parent and process group.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    Some(Process {
        pid,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        is_zombie: matches!(state, "Z" | "X"),
        command_line: std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default(),
        environment: std::fs::read(format!("/proc/{pid}/environ")),
    })
}

/// Whether nobody in this process group runs any more.
pub(crate) fn is_gone(group: i32) -> bool {
    !processes()
        .iter()
        .any(|process| process.group == group && !process.is_zombie)
}
