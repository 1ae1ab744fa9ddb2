//! Instructions of extended BPF, written by hand: just those that the program of a TUN needs.
//!
//! A program is a list of lines, each an instruction, a jump to a label or a label; [`assemble`]
//! turns labels into distances. Registers: 0 is what a call returned and what the program returns,
//! 1 to 5 are arguments, 6 to 9 survive calls, 10 points behind the 512 bytes of stack.

/// One instruction as the kernel reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    /// Destination in the lower four bits, source in the upper four.
    registers: u8,
    offset: i16,
    value: i32,
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct R(pub(super) u8);

/// The frame: the end of the stack.
pub(super) const FRAME: R = R(10);

/// A line of a program, with labels of type `L`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Line<L> {
    Do(Instruction),
    /// An instruction whose offset is the distance to a label.
    To(Instruction, L),
    At(L),
}

/// Functions of the kernel that programs call.
pub(super) const MAP_LOOKUP: i32 = 1;
pub(super) const LOAD_BYTES: i32 = 26;

// Classes and modes (`linux/bpf.h`).
const LOAD_WIDE: u8 = 0x18; // of a map's descriptor with source 1, in two instructions
const LOAD_32: u8 = 0x61;
const LOAD_8: u8 = 0x71;
const STORE_32_VALUE: u8 = 0x62;
const ADD_64: u8 = 0x07;
const MULTIPLY_32: u8 = 0x24;
const MODULO_32: u8 = 0x94;
const SHIFT_RIGHT_32: u8 = 0x74;
const XOR_32_REGISTER: u8 = 0xac;
const MOVE_32: u8 = 0xb4;
const MOVE_64_REGISTER: u8 = 0xbf;
const JUMP: u8 = 0x05;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_UNEQUAL: u8 = 0x55;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

const SOURCE_IS_MAP: R = R(1);

const fn instruction<L>(code: u8, to: R, from: R, offset: i16, value: i32) -> Line<L> {
    Line::Do(Instruction { code, registers: from.0 << 4 | to.0, offset, value })
}

/// `to = value`
pub(super) const fn set<L>(to: R, value: i32) -> Line<L> {
    instruction(MOVE_32, to, R(0), 0, value)
}

/// `to = from`
pub(super) const fn copy<L>(to: R, from: R) -> Line<L> {
    instruction(MOVE_64_REGISTER, to, from, 0, 0)
}

/// `to = address of a place in the stack`, in two instructions
pub(super) const fn address<L: Copy>(to: R, place: i16) -> [Line<L>; 2] {
    [copy(to, FRAME), instruction(ADD_64, to, R(0), 0, place as i32)]
}

/// `to = 32 bits at from + offset`
pub(super) const fn load_32<L>(to: R, from: R, offset: i16) -> Line<L> {
    instruction(LOAD_32, to, from, offset, 0)
}

/// `to = byte at from + offset`
pub(super) const fn load_8<L>(to: R, from: R, offset: i16) -> Line<L> {
    instruction(LOAD_8, to, from, offset, 0)
}

/// `32 bits at a place in the stack = value`
pub(super) const fn store_32<L>(place: i16, value: i32) -> Line<L> {
    instruction(STORE_32_VALUE, FRAME, R(0), place, value)
}

/// `to *= value`, 32 bits
pub(super) const fn multiply<L>(to: R, value: i32) -> Line<L> {
    instruction(MULTIPLY_32, to, R(0), 0, value)
}

/// `to %= value`, 32 bits without sign
pub(super) const fn modulo<L>(to: R, value: i32) -> Line<L> {
    instruction(MODULO_32, to, R(0), 0, value)
}

/// `to >>= value`, 32 bits without sign
pub(super) const fn shift_right<L>(to: R, value: i32) -> Line<L> {
    instruction(SHIFT_RIGHT_32, to, R(0), 0, value)
}

/// `to ^= from`, 32 bits
pub(super) const fn xor<L>(to: R, from: R) -> Line<L> {
    instruction(XOR_32_REGISTER, to, from, 0, 0)
}

/// `to = a map, by its descriptor`, in two instructions
pub(super) const fn map<L: Copy>(to: R, descriptor: i32) -> [Line<L>; 2] {
    [instruction(LOAD_WIDE, to, SOURCE_IS_MAP, 0, descriptor), instruction(0, R(0), R(0), 0, 0)]
}

/// Calls a function of the kernel with registers 1 to 5.
pub(super) const fn call<L>(function: i32) -> Line<L> {
    instruction(CALL, R(0), R(0), 0, function)
}

/// Ends with what is in register 0.
pub(super) const fn exit<L>() -> Line<L> {
    instruction(EXIT, R(0), R(0), 0, 0)
}

pub(super) const fn jump<L: Copy>(label: L) -> Line<L> {
    to(JUMP, R(0), 0, label)
}

/// Jumps if `register == value`.
pub(super) const fn jump_if<L: Copy>(register: R, value: i32, label: L) -> Line<L> {
    to(JUMP_EQUAL, register, value, label)
}

/// Jumps if `register != value`.
pub(super) const fn jump_unless<L: Copy>(register: R, value: i32, label: L) -> Line<L> {
    to(JUMP_UNEQUAL, register, value, label)
}

const fn to<L: Copy>(code: u8, register: R, value: i32, label: L) -> Line<L> {
    Line::To(Instruction { code, registers: register.0, offset: 0, value }, label)
}

/// Turns lines into instructions.
///
/// # Panics
/// If a jump goes to a label that is nowhere, or farther than 32,767 instructions.
pub(super) fn assemble<L: Copy + PartialEq>(lines: &[Line<L>]) -> Vec<Instruction> {
    let mut code = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let (mut instruction, label) = match line {
            Line::Do(instruction) => (*instruction, None),
            Line::To(instruction, label) => (*instruction, Some(*label)),
            Line::At(_) => continue,
        };
        if let Some(label) = label {
            instruction.offset = distance(lines, at, label);
        }
        code.push(instruction);
    }
    code
}

/// Instructions between the line `from` and a label, negative if the label is before it.
fn distance<L: Copy + PartialEq>(lines: &[Line<L>], from: usize, label: L) -> i16 {
    let is_label = |line: &Line<L>| matches!(line, Line::At(other) if *other == label);
    let instructions =
        |lines: &[Line<L>]| lines.iter().filter(|line| !matches!(line, Line::At(_))).count();
    let Some(to) = lines.iter().position(is_label) else { panic!("a label is nowhere") };
    let (to, next) = (instructions(&lines[..to]), instructions(&lines[..=from]));
    let distance = to as isize - next as isize;
    assert!(distance.abs() <= i16::MAX as isize);
    distance as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_count_instructions_and_not_labels() {
        let lines = [
            Line::At('a'),
            jump_if(R(0), 7, 'c'),
            set(R(1), 1),
            Line::At('b'),
            jump_unless(R(2), 0, 'a'),
            Line::At('c'),
            exit(),
            jump('b'),
        ];
        let offsets: Vec<i16> = assemble(&lines).iter().map(|code| code.offset).collect();
        assert_eq!(offsets, [2, 0, -3, 0, -3]);
    }

    #[test]
    fn an_instruction_is_laid_out_as_the_kernel_reads_it() {
        assert_eq!(size_of::<Instruction>(), 8);
        // r6 = r1, and r0 = *(u32 *)(r10 - 4): bytes as a compiler writes them.
        let code = assemble::<()>(&[copy(R(6), R(1)), load_32(R(0), FRAME, -4)]);
        assert_eq!(code[0], Instruction { code: 0xbf, registers: 0x16, offset: 0, value: 0 });
        assert_eq!(code[1], Instruction { code: 0x61, registers: 0xa0, offset: -4, value: 0 });
    }
}
