//! Guesses of the word that somebody meant.

/// Least likeness of two words, from 0 to 1 (Jaro-Winkler).
const LIKE: f64 = 0.75;

/// The known word that is most like a given one, if any is like it; case does not count.
#[must_use]
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer than any word that is known, and not to be compared with care.
    if given.len() > 64 {
        return None;
    }
    let given = given.to_ascii_lowercase();
    let likeness = |word: &str| strsim::jaro_winkler(&given, &word.to_ascii_lowercase());
    let best = known.into_iter().map(|word| (likeness(word), word)).max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|&(likeness, _)| likeness >= LIKE).map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_understood_and_other_words_are_not() {
        let known = ["subnets", "mtu", "encryption"];
        let table = [
            ("subnet", Some("subnets")),
            ("subents", Some("subnets")),
            ("MTU", Some("mtu")),
            ("encrypt", Some("encryption")),
            ("replicas", None),
            ("", None),
        ];
        for (given, expected) in table {
            assert_eq!(nearest(given, known), expected, "{given}");
        }
    }
}
