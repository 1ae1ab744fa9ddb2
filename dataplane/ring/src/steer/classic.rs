//! The classic BPF program of a group of sockets.
//!
//! The kernel runs it with the datagram's payload at offset 0 and the IP header at
//! [`libc::SKF_NET_OFF`], and takes what it returns as a position in order of binding. A load
//! beyond the datagram ends the program with 0, which would be core 0's data: so nothing is loaded
//! before its length was asked for. Loads are big-endian; the index is little-endian, so its upper
//! half is taken byte by byte. Conditional jumps reach 255 instructions, which a rule stays within.

use super::{Rule, SPREAD, Steering};
use crate::listen::Family;

use libc::sock_filter as Instruction;

/// Accepts nothing: what arrives at a socket with this filter is dropped.
pub(crate) const NOTHING: [Instruction; 1] = [statement(libc::BPF_RET | libc::BPF_K, 0)];

/// Bytes of the IPv4 header before the source address, and of the IPv6 header.
const IPV4_SOURCE_AT: u32 = 12;
const IPV6_SOURCE_AT: u32 = 8;

/// Makes the program for the group of one family.
///
/// # Panics
/// If the steering is unsound (see [`Rule`] and [`Owner`](super::Owner)).
pub(crate) fn program(steering: &Steering, family: Family) -> Vec<Instruction> {
    steering.assert_sound();
    let rules: Vec<_> = steering.rules.iter().flat_map(|rule| by_rule(steering, rule)).collect();
    // What is too short for a first word goes over all rules.
    let mut program = vec![load(LENGTH, 0), jump(JGE, 4, 1, 0), statement(JA, rules.len() as u32)];
    program.extend(rules);
    program.extend(by_source(steering, family));
    program
}

/// Returns the owner if the rule matches; goes on behind itself otherwise. The caller made sure of
/// four bytes.
fn by_rule(steering: &Steering, rule: &Rule) -> Vec<Instruction> {
    let owner = steering.owner;
    let body = [
        // The two upper bytes of the index, the highest last.
        load(BYTE, rule.index_at + 3),
        statement(SHIFT_LEFT, 8),
        statement(TO_X, 0),
        load(BYTE, rule.index_at + 2),
        statement(OR_X, 0),
        statement(XOR, owner.secret >> 16),
        statement(SHIFT_RIGHT, 16 - owner.core_bits),
    ];
    // Where each condition goes on behind the rule: past what follows it.
    let after = |rest: usize| (rest + body.len() + 2) as u8;
    let mut code = vec![
        load(WORD, 0),
        jump(JEQ, rule.first_word, 0, after(3)),
        load(LENGTH, 0),
        jump(JGE, rule.bytes_min, 0, after(1)),
        jump(JGT, rule.bytes_max, after(0), 0),
    ];
    code.extend(body);
    code.push(jump(JGE, owner.cores.into(), 1, 0));
    code.push(statement(RETURN, 0));
    code
}

/// Returns the initiations of the core that the source address falls to.
fn by_source(steering: &Steering, family: Family) -> Vec<Instruction> {
    let owner = steering.owner;
    let at = |offset: u32| libc::SKF_NET_OFF as u32 + offset;
    let source_at = match family {
        Family::V4 => IPV4_SOURCE_AT,
        Family::V6 => IPV6_SOURCE_AT,
    };
    let mut code = vec![load(WORD, at(source_at)), statement(XOR, owner.secret)];
    code.extend(MIX);
    if family == Family::V6 {
        code.extend([statement(TO_X, 0), load(WORD, at(IPV6_SOURCE_AT + 4)), statement(XOR_X, 0)]);
        code.extend(MIX);
    }
    code.extend([
        statement(SHIFT_RIGHT, 16),
        statement(MODULO, owner.cores.into()),
        statement(ADD, owner.cores.into()),
        statement(RETURN, 0),
    ]);
    code
}

/// As [`mixed`](super::mixed).
const MIX: [Instruction; 5] = [
    statement(MULTIPLY, SPREAD),
    statement(TO_X, 0),
    statement(SHIFT_RIGHT, 16),
    statement(XOR_X, 0),
    statement(MULTIPLY, SPREAD),
];

const WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LENGTH: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_LEN;
const TO_X: u32 = libc::BPF_MISC | libc::BPF_TAX;
const OR_X: u32 = libc::BPF_ALU | libc::BPF_OR | libc::BPF_X;
const XOR: u32 = libc::BPF_ALU | libc::BPF_XOR | libc::BPF_K;
const XOR_X: u32 = libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X;
const ADD: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K;
const MULTIPLY: u32 = libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K;
const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
const SHIFT_LEFT: u32 = libc::BPF_ALU | libc::BPF_LSH | libc::BPF_K;
const SHIFT_RIGHT: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
const JA: u32 = libc::BPF_JMP | libc::BPF_JA;
const JEQ: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JGE: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const JGT: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_A;

const fn load(kind: u32, at: u32) -> Instruction {
    statement(kind, at)
}

const fn statement(code: u32, k: u32) -> Instruction {
    jump(code, k, 0, 0)
}

/// Goes on `yes` or `no` instructions behind the next one.
const fn jump(code: u32, k: u32, yes: u8, no: u8) -> Instruction {
    Instruction { code: code as u16, jt: yes, jf: no, k }
}
