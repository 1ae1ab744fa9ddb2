//! Accounts and what is left of their volumes, as fields of a message.
//!
//! What there is of them in the running gateway is told like peers, before the pause; what is left
//! of volumes can only be told in it. This file must not know when what is said.

use ringway_dataplane::command::Exhausted;
use ringway_flow::qos::Rate;
use ringway_proto::AccountId;
use ringway_proto::record::{Reader, RecordError};

use crate::plane::{Account, AccountVolume, VolumeLeft};

/// Appends an account.
pub(super) fn write(out: &mut Vec<u8>, account: &Account) {
    out.extend(account.owner.to_le_bytes());
    out.push(account.parent.is_some().into());
    out.extend(account.parent.map_or(0, |parent| parent.0).to_le_bytes());
    for rate in account.rates {
        out.push(rate.is_some().into());
        write_rate(out, rate.unwrap_or(Rate { bytes_per_second: 0, burst: 0 }));
    }
    let Some(AccountVolume { number, bytes, then }) = account.volume else {
        return out.push(0);
    };
    match then {
        Exhausted::Drop => out.push(1),
        Exhausted::Report => out.push(2),
        Exhausted::Throttle(rates) => {
            out.push(3);
            rates.into_iter().for_each(|rate| write_rate(out, rate));
        }
    }
    out.extend(number.to_le_bytes());
    out.extend(bytes.to_le_bytes());
}

/// Reads an account.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Account, RecordError> {
    let owner = reader.u64()?;
    let has_parent = reader.flag("parent")?;
    let parent = Some(AccountId(reader.u32()?)).filter(|_| has_parent);
    let mut rates = [None; 2];
    for rate in &mut rates {
        let limited = reader.flag("limit")?;
        *rate = Some(read_rate(reader)?).filter(|_| limited);
    }
    let then = match reader.u8()? {
        0 => return Ok(Account { owner, parent, rates, volume: None }),
        1 => Exhausted::Drop,
        2 => Exhausted::Report,
        3 => Exhausted::Throttle([read_rate(reader)?, read_rate(reader)?]),
        _ => return Err(RecordError::Impossible { field: "volume" }),
    };
    let volume = AccountVolume { number: reader.u64()?, bytes: reader.u64()?, then };
    Ok(Account { owner, parent, rates, volume: Some(volume) })
}

/// Appends what is left.
pub(super) fn write_left(out: &mut Vec<u8>, left: &VolumeLeft) {
    out.extend(left.account.0.to_le_bytes());
    out.extend(left.bytes.to_le_bytes());
    out.push(left.exhausted.into());
}

/// Reads what is left.
pub(super) fn read_left(reader: &mut Reader<'_>) -> Result<VolumeLeft, RecordError> {
    let (account, bytes) = (AccountId(reader.u32()?), reader.u64()?);
    Ok(VolumeLeft { account, bytes, exhausted: reader.flag("used up")? })
}

fn write_rate(out: &mut Vec<u8>, rate: Rate) {
    out.extend(rate.bytes_per_second.to_le_bytes());
    out.extend(rate.burst.to_le_bytes());
}

fn read_rate(reader: &mut Reader<'_>) -> Result<Rate, RecordError> {
    Ok(Rate { bytes_per_second: reader.u64()?, burst: reader.u64()? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::plane::Operation;
    use crate::upgrade::message::Message;

    #[test]
    fn accounts_of_every_kind_are_read_as_they_were_written() {
        let rate = Rate { bytes_per_second: 1 << 40, burst: 77 };
        let volume = |then| Some(AccountVolume { number: 1 << 33, bytes: u64::MAX, then });
        let accounts = [
            Account::default(),
            Account { owner: 9, parent: Some(AccountId(0)), ..Account::default() },
            Account {
                rates: [None, Some(rate)],
                volume: volume(Exhausted::Drop),
                owner: 1,
                parent: None,
            },
            Account { volume: volume(Exhausted::Report), ..Account::default() },
            Account {
                volume: volume(Exhausted::Throttle([rate, Rate::of(5)])),
                ..Account::default()
            },
        ];
        let steps = accounts.iter().enumerate().flat_map(|(id, account)| {
            let id = AccountId(id as u32);
            [Operation::PutAccount(id, Box::new(*account)), Operation::Account(Some(id))]
        });
        let message = Message::Steps(steps.collect());
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        assert_eq!(Message::parse(&bytes).unwrap(), message);
        // Cut anywhere it is refused, or a shorter list.
        for len in 0..bytes.len() {
            if let Ok(Message::Steps(steps)) = Message::parse(&bytes[..len]) {
                assert!(steps.len() < 2 * accounts.len());
            }
        }
    }

    #[test]
    fn what_is_left_is_read_as_it_was_written() {
        let left = |account, exhausted| VolumeLeft {
            account: AccountId(account),
            bytes: 5_000_000_000 + u64::from(account),
            exhausted,
        };
        let message = Message::Volumes(vec![left(0, false), left(1 << 17, true)]);
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        assert_eq!(Message::parse(&bytes).unwrap(), message);
        bytes.pop();
        assert!(Message::parse(&bytes).is_err());
    }
}
