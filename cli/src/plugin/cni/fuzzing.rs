//! Runtimes' calls from anywhere.

use super::call::{Arguments, Command, Place};
use super::config::{self, Basics, Config};
use super::failure::CniError;
use super::{request, spoken};
use crate::plugin::holding::LONGEST;

/// Reads a call of ADD and asks for what it says: under a bounded name, or with an answer in a version of CNI.
pub(crate) fn called(data: &[u8]) {
    let mut parts = data.splitn(4, |byte| *byte == b'\n').map(String::from_utf8_lossy);
    let mut part = || parts.next().unwrap_or_default().into_owned();
    let (arguments, container, interface, input) = (part(), part(), part(), part());
    if let Err(error) = asked(&arguments, container, interface, input.as_bytes()) {
        let number = spoken(input.as_bytes()).number();
        let answer = error.answer(number);
        assert!(answer["cniVersion"] == number && answer["code"].is_u64() && answer["msg"].is_string());
    }
}

fn asked(arguments: &str, container: String, interface: String, input: &[u8]) -> Result<(), CniError> {
    let env = |name: &str| match name {
        "CNI_CONTAINERID" => Some(container.clone()),
        "CNI_IFNAME" => Some(interface.clone()),
        "CNI_NETNS" => Some("/run/netns/a".to_owned()),
        _ => None,
    };
    let place = Place::of(Command::Add, &env)?;
    let arguments = Arguments::parse(arguments)?;
    let conf = config::object(input)?;
    let (basics, config) = (Basics::of(&conf)?, Config::of(&conf)?);
    let request = request::translate(&basics, &config, &place, &arguments)?;
    assert!(request.holder.len() <= LONGEST && request.holder.is_ascii(), "{}", request.holder);
    Ok(())
}
