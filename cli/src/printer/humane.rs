//! Times as people say them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An instant from the wire, where 0 means that it is not known.
pub(crate) fn instant(unix_seconds: u64) -> Option<SystemTime> {
    (unix_seconds != 0).then(|| UNIX_EPOCH + Duration::from_secs(unix_seconds))
}

/// A length of time in its largest unit, or two of them when the first is small: `42s`, `3m10s`, `2h`, `5d`.
pub(crate) fn age(length: Duration) -> String {
    let seconds = length.as_secs();
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| {
        if large < 10 && small > 0 {
            format!("{large}{unit}{small}{small_unit}")
        } else {
            format!("{large}{unit}")
        }
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// Tells how long something is past.
pub(crate) fn ago(then: SystemTime, now: SystemTime) -> String {
    format!("{} ago", age(now.duration_since(then).unwrap_or_default()))
}

/// Tells how long something lasts still.
pub(crate) fn remaining(end: SystemTime, now: SystemTime) -> String {
    match end.duration_since(now) {
        Ok(left) => format!("in {}", age(rounded(left))),
        Err(_) => "expired".to_owned(),
    }
}

/// To the nearest of the steps that [`age`] tells apart, so that a day is not 23 hours as soon as it begins.
fn rounded(length: Duration) -> Duration {
    let seconds = length.as_secs() + u64::from(length.subsec_nanos() > 0);
    let step = match seconds {
        0..600 => 1,
        600..36_000 => 60,
        36_000..864_000 => 3_600,
        _ => 86_400,
    };
    Duration::from_secs((seconds + step / 2) / step * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_in_one_or_two_units() {
        let table = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (190, "3m10s"),
            (1_234, "20m"),
            (3_600, "1h"),
            (9_000, "2h30m"),
            (40_000, "11h"),
            (100_000, "1d3h"),
            (8_640_000, "100d"),
        ];
        for (seconds, expected) in table {
            assert_eq!(age(Duration::from_secs(seconds)), expected);
        }
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(ago(UNIX_EPOCH, now), "16m ago");
        assert_eq!(ago(now, UNIX_EPOCH), "0s ago", "a clock that runs ahead");
        assert_eq!(remaining(UNIX_EPOCH, now), "expired");
        assert_eq!(remaining(now + Duration::from_secs(3_600), now), "in 1h");
        assert_eq!(instant(0), None);
    }

    #[test]
    fn what_is_left_is_rounded_to_the_nearest_unit() {
        let table = [
            (400, "in 1s"),
            (599_100, "in 10m"),
            (1_799_500, "in 30m"),
            (3_599_500, "in 1h"),
            (86_399_200, "in 1d"),
            (82_700_000, "in 23h"),
            (2_591_999_000, "in 30d"),
        ];
        for (millis, expected) in table {
            assert_eq!(remaining(UNIX_EPOCH + Duration::from_millis(millis), UNIX_EPOCH), expected);
        }
    }
}
