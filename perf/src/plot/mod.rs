//! Plain SVG, without a library: bars below each other ([`bars()`]), columns beside each other and
//! curves ([`Chart`]).

mod axis;
mod bars;
mod chart;

pub use bars::{Group, bars};
pub use chart::{Chart, Points, Series};

use crate::programs::Program;

/// The colour of a program in all plots: blues for ours.
#[must_use]
pub const fn colour(program: Program) -> &'static str {
    match program {
        Program::Ringway => "#2166ac",
        Program::RingwayUring => "#5aa3d9",
        Program::RingwayEpoll => "#9ecae1",
        Program::RingwayTwo => "#08306b",
        Program::WireguardGo => "#e08214",
        Program::WireguardGoNew => "#b35806",
        Program::Boringtun => "#8073ac",
        Program::Gotatun => "#35978f",
        Program::OpenVpn => "#969696",
        Program::Ocserv => "#525252",
    }
}

/// Text that is no markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
