//! Rules that carry every frame that comes in by one device out of another, and back: neither device leads anywhere else. Pure.

use super::table;

pub(super) const FAMILY: &str = "netdev";

/// The table of this name that joins two devices. `answered`: questions to DHCP servers that come by the first one go no further.
pub(super) fn table(name: &str, [first, second]: [&str; 2], answered: bool) -> String {
    let question = if answered { "        meta protocol ip udp dport 67 drop\n" } else { "" };
    let chain = |name: &str, from: &str, to: &str, before: &str| {
        format!(
            "    chain {name} {{\n        type filter hook ingress device \"{from}\" priority 0; policy drop;\n\
             {before}        fwd to \"{to}\"\n    }}\n"
        )
    };
    let body = chain("there", first, second, question) + &chain("back", second, first, "");
    table::stamped(FAMILY, name, "a wire of Sealane", &body)
}
