//! JSON to PostgreSQL's values and back.
//!
//! From an input: each value as text, of a type that the server infers from the statement. From a row: each value in
//! PostgreSQL's binary form, as JSON. Nothing is lost on the way: what JSON's numbers cannot hold is a text.
//!
//! Sources: the types' send functions, as `pg_type` names them; `numeric_send`, `array_send` and `interval_send` have
//! forms of their own.

use std::error::Error;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use fanout_core::tool::ToolError;
use serde_json::{Map, Value};
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

use crate::value::scalar_text;

/// A value as text; `None` is NULL.
#[derive(Debug)]
pub(super) struct Text(pub(super) Option<String>);

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        Ok(match &self.0 {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// An input as the text of a value of this type.
///
/// # Errors
/// [`ToolError::BadInput`] for a NUL character, which no text of PostgreSQL can hold.
pub(super) fn text(name: &str, value: Option<&Value>, of: &Type) -> Result<Text, ToolError> {
    let text = value.and_then(|value| text_of(value, of));
    if text.as_ref().is_some_and(|text| text.contains('\0')) {
        let message = format!("`{name}` holds a NUL character, which PostgreSQL cannot keep: leave it out");
        return Err(ToolError::BadInput(message));
    }
    Ok(Text(text))
}

fn text_of(value: &Value, of: &Type) -> Option<String> {
    let of = base(of);
    match value {
        Value::Null => None,
        value if *of == Type::JSON || *of == Type::JSONB => Some(value.to_string()),
        Value::Array(elements) => match of.kind() {
            Kind::Array(element) => Some(array_text(elements, element)),
            _ => Some(value.to_string()),
        },
        Value::Object(_) => Some(value.to_string()),
        scalar => scalar_text(scalar),
    }
}

/// `{"a","b"}`: each element quoted, so that it is taken as it is.
fn array_text(elements: &[Value], of: &Type) -> String {
    let mut text = String::from("{");
    for (at, element) in elements.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        match element {
            // The inner ones of an array of arrays are of the same type as the outer.
            Value::Array(inner) if *of != Type::JSON && *of != Type::JSONB => text.push_str(&array_text(inner, of)),
            element => match text_of(element, of) {
                None => text.push_str("NULL"),
                Some(element) => {
                    text.push('"');
                    text.push_str(&element.replace('\\', "\\\\").replace('"', "\\\""));
                    text.push('"');
                }
            },
        }
    }
    text.push('}');
    text
}

/// The type that a domain is made of.
fn base(of: &Type) -> &Type {
    match of.kind() {
        Kind::Domain(inner) => base(inner),
        _ => of,
    }
}

/// One value of a row, as JSON.
#[derive(Debug)]
pub(super) struct Cell(pub(super) Value);

impl<'a> FromSql<'a> for Cell {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        json(of, raw).map(Self)
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Value::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A value that has no form in JSON here.
#[derive(Debug, thiserror::Error)]
#[error("a value of type {0} cannot be shown; cast it in the statement, as in `::text`")]
pub(super) struct NoForm(String);

type Read<T> = Result<T, Box<dyn Error + Sync + Send>>;

fn json(of: &Type, raw: &[u8]) -> Read<Value> {
    match of.kind() {
        Kind::Domain(inner) => return json(inner, raw),
        Kind::Enum(_) => return Ok(std::str::from_utf8(raw)?.into()),
        Kind::Array(_) => return array(of, raw),
        Kind::Composite(fields) => {
            let types: Vec<(&str, &Type)> = fields.iter().map(|field| (field.name(), field.type_())).collect();
            return composite(&types, raw);
        }
        _ => {}
    }
    Ok(match *of {
        Type::BOOL => bool::from_sql(of, raw)?.into(),
        Type::INT2 => i16::from_sql(of, raw)?.into(),
        Type::INT4 => i32::from_sql(of, raw)?.into(),
        Type::INT8 => i64::from_sql(of, raw)?.into(),
        Type::OID | Type::XID | Type::CID => u32::from_be_bytes(raw.try_into()?).into(),
        Type::XID8 => u64::from_be_bytes(raw.try_into()?).into(),
        Type::FLOAT4 => float(f32::from_sql(of, raw)?),
        Type::FLOAT8 => float(f64::from_sql(of, raw)?),
        Type::NUMERIC => numeric(raw)?.into(),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::XML => {
            std::str::from_utf8(raw)?.into()
        }
        Type::CHAR => String::from_utf8_lossy(raw).into_owned().into(),
        Type::JSON => document(raw)?,
        // One byte says which version of the form it is.
        Type::JSONB => document(raw.get(1..).unwrap_or_default())?,
        Type::UUID => uuid(raw.try_into()?).into(),
        Type::BYTEA => bytes(raw).into(),
        Type::DATE => date(i32::from_be_bytes(raw.try_into()?))?.into(),
        Type::TIME => time(i64::from_be_bytes(raw.try_into()?))?.into(),
        Type::TIMETZ => {
            let (time_of_day, zone) = raw.split_at_checked(8).ok_or("a time is cut short")?;
            let west = i32::from_be_bytes(zone.try_into()?);
            format!("{}{}", time(i64::from_be_bytes(time_of_day.try_into()?))?, offset(-west)).into()
        }
        Type::TIMESTAMP => timestamp(i64::from_be_bytes(raw.try_into()?), "")?.into(),
        Type::TIMESTAMPTZ => timestamp(i64::from_be_bytes(raw.try_into()?), "+00:00")?.into(),
        Type::INTERVAL => interval(raw)?.into(),
        Type::INET | Type::CIDR => address(raw, *of == Type::CIDR)?.into(),
        Type::MACADDR | Type::MACADDR8 => {
            raw.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":").into()
        }
        Type::BIT | Type::VARBIT => bits(raw)?.into(),
        Type::VOID => Value::Null,
        _ if of.name() == "citext" => std::str::from_utf8(raw)?.into(),
        _ => return Err(Box::new(NoForm(of.name().to_owned()))),
    })
}

/// JSON has no NaN and no infinity.
fn float(number: impl Into<f64> + Copy + std::fmt::Display) -> Value {
    // By the shortest text that reads back as the same number: a float4 of 0.1 is 0.1.
    let text = number.to_string();
    match serde_json::Number::from_f64(text.parse().unwrap_or_else(|_| number.into())) {
        Some(number) => Value::Number(number),
        None => match text.as_str() {
            "inf" => "Infinity".into(),
            "-inf" => "-Infinity".into(),
            _ => "NaN".into(),
        },
    }
}

/// A document nested deeper than we read is its own text.
fn document(raw: &[u8]) -> Read<Value> {
    let text = std::str::from_utf8(raw)?;
    Ok(serde_json::from_str(text).unwrap_or_else(|_| text.into()))
}

fn uuid(raw: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in raw.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// `\x` and hexadecimal digits: what PostgreSQL prints, and reads again.
fn bytes(raw: &[u8]) -> String {
    let mut text = String::with_capacity(2 + raw.len() * 2);
    text.push_str("\\x");
    for byte in raw {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Groups of four decimal digits, a weight, a sign and how many digits stand behind the point.
fn numeric(raw: &[u8]) -> Read<String> {
    let mut words = raw.chunks_exact(2).map(|word| i16::from_be_bytes([word[0], word[1]]));
    let mut next = || words.next().ok_or("a numeric is cut short");
    let (count, weight, sign, scale) = (next()?, next()?, next()?.cast_unsigned(), next()?);
    match sign {
        0xC000 => return Ok("NaN".to_owned()),
        0xD000 => return Ok("Infinity".to_owned()),
        0xF000 => return Ok("-Infinity".to_owned()),
        _ => {}
    }
    let groups = (0..count).map(|_| next()).collect::<Result<Vec<i16>, _>>()?;
    let group = |at: i32| usize::try_from(at).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let weight = i32::from(weight);
    let mut text = String::new();
    if sign == 0x4000 {
        text.push('-');
    }
    if weight < 0 {
        text.push('0');
    }
    for at in 0..=weight {
        let _ = if at == 0 { write!(text, "{}", group(at)) } else { write!(text, "{:04}", group(at)) };
    }
    let scale = usize::try_from(scale)?;
    if scale > 0 {
        let mut digits = String::with_capacity(scale + 4);
        let mut at = weight + 1;
        while digits.len() < scale {
            let _ = write!(digits, "{:04}", if at < 0 { 0 } else { group(at) });
            at += 1;
        }
        digits.truncate(scale);
        text.push('.');
        text.push_str(&digits);
    }
    Ok(text)
}

/// PostgreSQL counts days and microseconds from here.
fn epoch() -> NaiveDate {
    NaiveDate::from_ymd_opt(2000, 1, 1).unwrap_or_default()
}

const DAY_US: i64 = 86_400_000_000;

fn date(days: i32) -> Read<String> {
    let of_days = Days::new(days.unsigned_abs().into());
    let date = match days {
        i32::MAX => return Ok("infinity".to_owned()),
        i32::MIN => return Ok("-infinity".to_owned()),
        0.. => epoch().checked_add_days(of_days),
        _ => epoch().checked_sub_days(of_days),
    };
    Ok(date.ok_or("a date is too far away to be shown; cast it to text")?.to_string())
}

fn time(us: i64) -> Read<String> {
    if us == DAY_US {
        return Ok("24:00:00".to_owned());
    }
    let seconds = u32::try_from(us.div_euclid(1_000_000))?;
    let nanos = u32::try_from(us.rem_euclid(1_000_000))? * 1_000;
    let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos).ok_or("a time is out of range")?;
    Ok(time.format("%H:%M:%S%.f").to_string())
}

fn timestamp(us: i64, zone: &str) -> Read<String> {
    match us {
        i64::MAX => return Ok("infinity".to_owned()),
        i64::MIN => return Ok("-infinity".to_owned()),
        _ => {}
    }
    let epoch: DateTime<Utc> = epoch().and_time(NaiveTime::MIN).and_utc();
    let moment = epoch.checked_add_signed(TimeDelta::microseconds(us));
    let moment = moment.ok_or("a time is too far away to be shown; cast it to text")?;
    Ok(format!("{}{zone}", moment.format("%Y-%m-%dT%H:%M:%S%.f")))
}

/// `+05:30` for so many seconds to the east.
fn offset(east: i32) -> String {
    let (sign, seconds) = if east < 0 { ('-', -east) } else { ('+', east) };
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match seconds {
        0 => format!("{sign}{hours:02}:{minutes:02}"),
        _ => format!("{sign}{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// ISO 8601 (`P1Y2M3DT4H5M6.7S`), which PostgreSQL reads too; each part has its own sign.
fn interval(raw: &[u8]) -> Read<String> {
    let (us, rest) = raw.split_at_checked(8).ok_or("an interval is cut short")?;
    let (days, months) = rest.split_at_checked(4).ok_or("an interval is cut short")?;
    let us = i64::from_be_bytes(us.try_into()?);
    let (days, months) = (i32::from_be_bytes(days.try_into()?), i32::from_be_bytes(months.try_into()?));
    let mut text = String::from("P");
    let mut part = |number: i64, unit: char| {
        if number != 0 {
            let _ = write!(text, "{number}{unit}");
        }
    };
    part((months / 12).into(), 'Y');
    part((months % 12).into(), 'M');
    part(days.into(), 'D');
    if us != 0 {
        text.push('T');
        let seconds = us / 1_000_000;
        let mut part = |number: i64, unit: char| {
            if number != 0 {
                let _ = write!(text, "{number}{unit}");
            }
        };
        part(seconds / 3600, 'H');
        part(seconds / 60 % 60, 'M');
        let (whole, fraction) = (seconds % 60, us % 1_000_000);
        if whole != 0 || fraction != 0 {
            let sign = if us < 0 { "-" } else { "" };
            let fraction = format!("{:06}", fraction.abs());
            let fraction = fraction.trim_end_matches('0');
            let point = if fraction.is_empty() { "" } else { "." };
            let _ = write!(text, "{sign}{}{point}{fraction}S", whole.abs());
        }
    }
    Ok(if text == "P" { "PT0S".to_owned() } else { text })
}

/// A family, the bits of the network, whether it is a network, and the address.
fn address(raw: &[u8], is_network: bool) -> Read<String> {
    let [family, bits, _, _, address @ ..] = raw else { return Err("an address is cut short".into()) };
    let (address, all) = match family {
        2 => (Ipv4Addr::from(<[u8; 4]>::try_from(address)?).to_string(), 32),
        _ => (Ipv6Addr::from(<[u8; 16]>::try_from(address)?).to_string(), 128),
    };
    Ok(if *bits == all && !is_network { address } else { format!("{address}/{bits}") })
}

fn bits(raw: &[u8]) -> Read<String> {
    let (count, bytes) = raw.split_at_checked(4).ok_or("a bit string is cut short")?;
    let count = usize::try_from(i32::from_be_bytes(count.try_into()?))?;
    let all: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    Ok(all.chars().take(count).collect())
}

/// The bytes of a value that stands in another, which says their number before them; `None` is NULL.
fn next_value<'r>(raw: &mut &'r [u8]) -> Read<Option<&'r [u8]>> {
    let length = next_number(raw)?;
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    let (value, rest) = raw.split_at_checked(length).ok_or("a value is cut short")?;
    *raw = rest;
    Ok(Some(value))
}

fn next_number(raw: &mut &[u8]) -> Read<i32> {
    let (number, rest) = raw.split_first_chunk().ok_or("a value is cut short")?;
    *raw = rest;
    Ok(i32::from_be_bytes(*number))
}

/// How many dimensions, whether there are NULLs, the elements' type, a length and a lower bound per dimension, the elements.
fn array(of: &Type, mut raw: &[u8]) -> Read<Value> {
    let Kind::Array(element) = of.kind() else { return Err("no array".into()) };
    let dimensions = next_number(&mut raw)?;
    let (_has_null, _element) = (next_number(&mut raw)?, next_number(&mut raw)?);
    let mut lengths = Vec::new();
    for _ in 0..dimensions {
        lengths.push(usize::try_from(next_number(&mut raw)?)?);
        next_number(&mut raw)?;
    }
    if lengths.is_empty() {
        return Ok(Value::Array(Vec::new()));
    }
    elements(element, &lengths, &mut raw)
}

fn elements(of: &Type, lengths: &[usize], raw: &mut &[u8]) -> Read<Value> {
    let Some((length, inner)) = lengths.split_first() else {
        return Ok(match next_value(raw)? {
            Some(value) => json(of, value)?,
            None => Value::Null,
        });
    };
    (0..*length).map(|_| elements(of, inner, raw)).collect::<Read<Vec<Value>>>().map(Value::Array)
}

/// How many fields, and the type and value of each.
fn composite(fields: &[(&str, &Type)], mut raw: &[u8]) -> Read<Value> {
    next_number(&mut raw)?;
    let mut object = Map::new();
    for (name, of) in fields {
        next_number(&mut raw)?;
        let value = next_value(&mut raw)?.map(|value| json(of, value)).transpose()?;
        object.insert((*name).to_owned(), value.unwrap_or_default());
    }
    Ok(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn inputs_are_texts_that_the_server_reads_as_its_own_type() {
        for (value, of, text) in [
            (json!("a"), Type::TEXT, Some("a")),
            (json!(7.0), Type::INT4, Some("7")),
            (json!(1.5), Type::NUMERIC, Some("1.5")),
            (json!(true), Type::BOOL, Some("true")),
            (json!(null), Type::TEXT, None),
            (json!("a"), Type::JSONB, Some("\"a\"")),
            (json!({"a": [1]}), Type::JSONB, Some(r#"{"a":[1]}"#)),
            (json!([1, 2]), Type::JSON, Some("[1,2]")),
            (json!([1, null, 3]), Type::INT4_ARRAY, Some(r#"{"1",NULL,"3"}"#)),
            (json!(["a\"b\\", "NULL", ""]), Type::TEXT_ARRAY, Some(r#"{"a\"b\\","NULL",""}"#)),
            (json!([[1], [2]]), Type::INT4_ARRAY, Some(r#"{{"1"},{"2"}}"#)),
            (json!([{"a": 1}]), Type::JSONB_ARRAY, Some(r#"{"{\"a\":1}"}"#)),
            (json!([]), Type::TEXT_ARRAY, Some("{}")),
        ] {
            assert_eq!(text_of(&value, &of).as_deref(), text, "{value} as {of}");
        }
        assert!(super::text("x", Some(&json!("a\0")), &Type::TEXT).is_err());
    }

    #[test]
    fn a_value_that_is_cut_short_is_an_error_and_no_panic() {
        for of in [Type::NUMERIC, Type::INTERVAL, Type::INET, Type::INT4_ARRAY, Type::TIMETZ, Type::VARBIT, Type::UUID]
        {
            for length in 0..4 {
                let raw = vec![0xFF; length];
                assert!(json(&of, &raw).is_err(), "{of} of {length} bytes");
            }
        }
    }
}
