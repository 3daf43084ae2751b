//! Difference between two texts, line by line, as `diff -u` shows it without leaving anything out.

/// Lines with a space, a minus or a plus in front; nothing when both are the same. Documents are short, so the longest
/// common subsequence is found the plain way.
pub(crate) fn difference(old: &str, new: &str) -> Option<String> {
    if old == new {
        return None;
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let width = new.len() + 1;
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, vec![]);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(format!(" {}", old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len()
            && (j == new.len() || common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            lines.push(format!("-{}", old[i]));
            i += 1;
        } else {
            lines.push(format!("+{}", new[j]));
            j += 1;
        }
    }
    Some(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_have_is_shown_once_and_nothing_for_equal_texts() {
        let table = [
            ("a\nb\nc", "a\nb\nc", None),
            ("a\nb\nc", "a\nx\nc", Some(" a\n-b\n+x\n c")),
            ("", "a\nb", Some("+a\n+b")),
            ("a\nb", "", Some("-a\n-b")),
            ("a\nc", "a\nb\nc", Some(" a\n+b\n c")),
        ];
        for (old, new, expected) in table {
            assert_eq!(difference(old, new).as_deref(), expected, "{old:?} {new:?}");
        }
    }
}
