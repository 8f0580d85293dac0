//! Limits, of config.json or of an update. A zero says nothing in most of them.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::{Checked, quoted, require, text, within};
use crate::plan::number_list;

/// `at`: what stands before the names of the fields.
pub(crate) fn resources(at: &str, all: &LinuxResources) -> Checked {
    let at = |field: &str| format!("{at}{field}");
    for (index, rule) in all.devices().iter().flatten().enumerate() {
        let at = |field: &str| at(&format!("devices[{index}].{field}"));
        let access = rule.access().as_deref().unwrap_or_default();
        let known = access.chars().all(|letter| "rwm".contains(letter));
        require(at("access"), known, || quoted(access), "letters of rwm")?;
        within(at("major"), rule.major(), -1, i64::from(u32::MAX))?;
        within(at("minor"), rule.minor(), -1, i64::from(u32::MAX))?;
    }
    if let Some(wanted) = all.memory() {
        memory(&at("memory."), wanted)?;
    }
    if let Some(wanted) = all.cpu() {
        cpu(&at("cpu."), wanted)?;
    }
    if let Some(wanted) = all.pids() {
        within(at("pids.limit"), Some(wanted.limit()), -1, i64::from(i32::MAX))?;
    }
    if let Some(wanted) = all.block_io() {
        block_io(&at("blockIO."), wanted)?;
    }
    for (index, limit) in all.hugepage_limits().iter().flatten().enumerate() {
        let size = limit.page_size();
        let digits = size
            .strip_suffix("KB")
            .or(size.strip_suffix("MB"))
            .or(size.strip_suffix("GB"));
        let number = |digits: &str| !digits.starts_with('0') && digits.parse::<u64>().is_ok();
        let field = at(&format!("hugepageLimits[{index}].pageSize"));
        require(
            field,
            digits.is_some_and(number),
            || quoted(size),
            "a number with KB, MB or GB",
        )?;
    }
    for priority in all
        .network()
        .iter()
        .flat_map(|network| network.priorities().iter().flatten())
    {
        text(&at("network.priorities"), priority.name())?;
        let plain = !priority.name().is_empty() && !priority.name().contains(['/', ' ']);
        require(
            at("network.priorities"),
            plain,
            || quoted(priority.name()),
            "the name of an interface",
        )?;
    }
    for (file, value) in all.unified().iter().flatten() {
        text(&at("unified"), value)?;
        let plain = !file.is_empty() && !file.contains(['/', '\0']) && file.contains('.');
        require(at("unified"), plain, || quoted(file), "the name of a cgroup's file")?;
    }
    Ok(())
}

fn memory(at: &str, wanted: &LinuxMemory) -> Checked {
    for (field, value) in [
        ("limit", wanted.limit()),
        ("reservation", wanted.reservation()),
        ("swap", wanted.swap()),
        ("kernelTCP", wanted.kernel_tcp()),
    ] {
        within(format!("{at}{field}"), value, -1, i64::MAX)?;
    }
    // Docker's "not given" is -1 as an unsigned number.
    let swappiness = wanted.swappiness().filter(|value| *value != u64::MAX);
    within(format!("{at}swappiness"), swappiness, 0, 100)?;
    if let (Some(limit), Some(swap)) = (wanted.limit(), wanted.swap()) {
        let value = || format!("{swap} with a limit of {limit}");
        let right = swap <= 0 || limit <= swap;
        require(
            format!("{at}swap"),
            right,
            value,
            "memory and swap together: not below the limit",
        )?;
    }
    Ok(())
}

fn cpu(at: &str, wanted: &LinuxCpu) -> Checked {
    let given = |value: Option<u64>| value.filter(|value| *value != 0);
    within(format!("{at}period"), given(wanted.period()), 1000, 1_000_000)?;
    if let Some(quota) = wanted.quota() {
        let right = quota == 0 || quota == -1 || quota >= 1000;
        require(
            format!("{at}quota"),
            right,
            || quota.to_string(),
            "-1, or microseconds from 1000 on",
        )?;
    }
    within(format!("{at}idle"), wanted.idle(), 0, 1)?;
    for (field, list) in [("cpus", wanted.cpus()), ("mems", wanted.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            let right = number_list(list).is_some();
            require(
                format!("{at}{field}"),
                right,
                || quoted(list),
                "numbers and ranges, such as 0-3,7",
            )?;
        }
    }
    Ok(())
}

fn block_io(at: &str, wanted: &LinuxBlockIo) -> Checked {
    let weight = |field: String, value: Option<u16>| within(field, value.filter(|value| *value != 0), 10, 1000);
    weight(format!("{at}weight"), wanted.weight())?;
    weight(format!("{at}leafWeight"), wanted.leaf_weight())?;
    for (index, device) in wanted.weight_device().iter().flatten().enumerate() {
        let at = |field: &str| format!("{at}weightDevice[{index}].{field}");
        number(at("major"), device.major())?;
        number(at("minor"), device.minor())?;
        weight(at("weight"), device.weight())?;
        weight(at("leafWeight"), device.leaf_weight())?;
    }
    for (field, devices) in [
        ("throttleReadBpsDevice", wanted.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", wanted.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", wanted.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", wanted.throttle_write_iops_device()),
    ] {
        for (index, device) in devices.iter().flatten().enumerate() {
            number(format!("{at}{field}[{index}].major"), device.major())?;
            number(format!("{at}{field}[{index}].minor"), device.minor())?;
        }
    }
    Ok(())
}

fn number(field: String, value: i64) -> Checked {
    within(field, Some(value), 0, i64::from(u32::MAX))
}
