//! Frames as a test or a fuzzer sees them: events that own their data, written and read in pieces.

use super::{Decoder, Event, FrameError, HEADER, MAX_CONTROL, OpenHeader, ResetCode, StreamId, encode, take};

/// An event that owns its data.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Open(StreamId, OpenHeader),
    Data(StreamId, Vec<u8>),
    End(StreamId),
    Reset(StreamId, ResetCode, String),
    Window(StreamId, u32),
    Ping([u8; 8]),
    Pong([u8; 8]),
    GoAway(StreamId),
    Hello(u32),
}

impl Said {
    /// Writes it as it travels.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Open(id, header) => encode::open(out, *id, header),
            Self::Data(id, data) => encode::data(out, *id, data),
            Self::End(id) => encode::end(out, *id),
            Self::Reset(id, code, reason) => encode::reset(out, *id, *code, reason),
            Self::Window(id, credit) => encode::window(out, *id, *credit),
            Self::Ping(echo) => encode::ping(out, *echo),
            Self::Pong(echo) => encode::pong(out, *echo),
            Self::GoAway(last) => encode::go_away(out, *last),
            Self::Hello(max_streams) => encode::hello(out, *max_streams),
        }
    }
}

/// Reads `bytes` in pieces of the lengths of `cuts`, over and over.
pub(super) fn read(mut bytes: &[u8], cuts: impl IntoIterator<Item = usize>) -> Result<Vec<Said>, FrameError> {
    let mut decoder = Decoder::default();
    let mut said = Vec::new();
    let cuts: Vec<usize> = cuts.into_iter().collect();
    let mut cuts = cuts.iter().cycle();
    while !bytes.is_empty() {
        let mut piece = take(&mut bytes, cuts.next().map_or(1, |&cut| cut.max(1)));
        while let Some(event) = decoder.next(&mut piece)? {
            said.push(match event {
                Event::Open(id, Ok(header)) => Said::Open(id, header),
                Event::Open(id, Err(_)) => Said::Reset(id, ResetCode::ProtocolError, String::new()),
                Event::Data(id, data) => Said::Data(id, data.to_vec()),
                Event::End(id) => Said::End(id),
                Event::Reset(id, code, reason) => {
                    Said::Reset(id, code, reason.map_or_else(String::new, |reason| reason.to_string()))
                }
                Event::Window(id, credit) => Said::Window(id, credit),
                Event::Ping(echo) => Said::Ping(echo),
                Event::Pong(echo) => Said::Pong(echo),
                Event::GoAway(last) => Said::GoAway(last),
                Event::Hello { max_streams } => Said::Hello(max_streams),
                Event::Nothing => continue,
            });
        }
        assert!(piece.is_empty(), "all of a piece is used");
        assert!(decoder.partial.len() < HEADER + MAX_CONTROL, "no more than a frame is held");
    }
    Ok(joined(said))
}

/// Data arrives in pieces: neighbours of one stream are one.
pub(super) fn joined(said: Vec<Said>) -> Vec<Said> {
    let mut joined: Vec<Said> = Vec::new();
    for said in said {
        match (joined.last_mut(), said) {
            (_, Said::Data(_, data)) if data.is_empty() => {}
            (Some(Said::Data(last, all)), Said::Data(id, data)) if *last == id => all.extend(data),
            (_, said) => joined.push(said),
        }
    }
    joined
}
