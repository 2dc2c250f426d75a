//! Words of a value: taken apart, and put together again, as systemd.syntax(7), systemd.service(5) and systemd.unit(5)
//! have quotes, escapes and specifiers.

/// Takes a value apart at its blanks. Quotes are removed and escapes resolved; a backslash before anything else than an
/// escape stays, as systemd leaves it in command lines.
pub(super) fn split(value: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut letters = value.chars().peekable();
    loop {
        while letters.next_if(|letter| BLANK.contains(letter)).is_some() {}
        if letters.peek().is_none() {
            return Ok(words);
        }
        words.push(word(&mut letters)?);
    }
}

type Letters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn word(letters: &mut Letters<'_>) -> Result<String, String> {
    let mut word = String::new();
    let mut quote = None;
    while let Some(letter) = letters.peek().copied() {
        match (letter, quote) {
            (_, None) if BLANK.contains(&letter) => break,
            ('"' | '\'', None) => quote = Some(letter),
            (_, Some(open)) if letter == open => quote = None,
            ('\\', _) => {
                letters.next();
                escape(letters, &mut word)?;
                continue;
            }
            _ => word.push(letter),
        }
        letters.next();
    }
    match quote {
        Some(open) => Err(format!("a quotation begins with {open} and does not end")),
        None => Ok(word),
    }
}

/// What stands behind a backslash.
fn escape(letters: &mut Letters<'_>, word: &mut String) -> Result<(), String> {
    let Some(letter) = letters.next() else { return Err("a backslash stands at the end".into()) };
    let plain = match letter {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        's' => ' ',
        '\\' | '"' | '\'' => letter,
        'x' => number(letters, 2, 16)?,
        'u' => number(letters, 4, 16)?,
        'U' => number(letters, 8, 16)?,
        '0'..='7' => {
            let rest = number_text(letters, 2, 8)?;
            character(u32::from_str_radix(&format!("{letter}{rest}"), 8).ok())?
        }
        other => {
            word.push('\\');
            other
        }
    };
    word.push(plain);
    Ok(())
}

fn number(letters: &mut Letters<'_>, digits: usize, radix: u32) -> Result<char, String> {
    let text = number_text(letters, digits, radix)?;
    character(u32::from_str_radix(&text, radix).ok())
}

fn number_text(letters: &mut Letters<'_>, digits: usize, radix: u32) -> Result<String, String> {
    let mut text = String::new();
    while text.len() < digits {
        match letters.next_if(|letter| letter.is_digit(radix)) {
            Some(digit) => text.push(digit),
            None => return Err(format!("an escape with a number needs {digits} digits")),
        }
    }
    Ok(text)
}

fn character(code: Option<u32>) -> Result<char, String> {
    match code.and_then(char::from_u32) {
        Some('\0') | None => Err("an escape stands for no character".into()),
        // systemd takes \xHH and \NNN for a byte: above 127 that is no character of its own.
        Some(letter) => Ok(letter),
    }
}

/// A word as a command line of systemd's takes it. Specifiers and variables in it are not touched.
pub(super) fn quoted(word: &str) -> String {
    let plain = |letter: char| !(letter.is_whitespace() || letter.is_control() || matches!(letter, '"' | '\'' | '\\'));
    if !word.is_empty() && word != ";" && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for letter in word.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            letter if letter.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => text.push(letter),
        }
    }
    text.push('"');
    text
}

/// A text that systemd shall take as it is, where it would resolve specifiers.
pub(super) fn without_specifiers(text: &str) -> String {
    text.replace('%', "%%")
}

/// A word of a command line that systemd shall take as it is: neither specifiers nor variables are resolved in it.
pub(super) fn literal(word: &str) -> String {
    without_specifiers(word).replace('$', "$$")
}

/// Whether systemd will have to resolve something in it, so that nobody knows yet what it will be.
pub(super) fn is_open(text: &str) -> bool {
    text.replace("%%", "").contains('%') || text.contains('$')
}

/// Checks the specifiers of a value, which systemd resolves when it loads the unit.
pub(super) fn check_specifiers(value: &str) -> Result<(), String> {
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            continue;
        }
        match letters.next() {
            Some(known) if SPECIFIERS.contains(known) => {}
            Some(other) => {
                let other: String = other.escape_default().collect();
                return Err(format!("'%{other}' is not a specifier of systemd.unit(5): for a percent sign write '%%'"));
            }
            None => return Err("a percent sign stands at the end: write '%%' for one".into()),
        }
    }
    Ok(())
}

/// What is between words.
const BLANK: [char; 4] = [' ', '\t', '\n', '\r'];

/// Those of systemd 252.
const SPECIFIERS: &str = "%aAbBCdEfgGhHiIjJlLmMnNopPqsStTuUvVwW";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_taken_apart_as_systemd_does() {
        for (value, words) in [
            ("", &[][..]),
            ("  a  b\tc ", &["a", "b", "c"]),
            (r#"sh -c "echo 'a b'" 'x "y"'"#, &["sh", "-c", "echo 'a b'", "x \"y\""]),
            (r#"a"b c"d '' """#, &["ab cd", "", ""]),
            (r"\x41\101\u00e4\t\s\\ \d+", &["AA\u{e4}\t \\", r"\d+"]),
            (r#""a\"b" 'it\'s'"#, &["a\"b", "it's"]),
        ] {
            assert_eq!(split(value).unwrap(), words, "{value}");
        }
    }

    #[test]
    fn what_does_not_end_is_refused() {
        for value in ["\"a", "'", "a\\", "\\x4", "\\x00", "\\000", "\\ud800", "\\400000000\\"] {
            assert!(split(value).is_err(), "{value}");
        }
    }

    #[test]
    fn specifiers_are_those_of_systemd() {
        assert!(check_specifiers("%i %% %t/x").is_ok());
        for value in ["100%", "%z", "50% off", "%\u{e4}"] {
            assert!(check_specifiers(value).is_err(), "{value}");
        }
        assert!(is_open("a%ib") && is_open("${X}") && !is_open("100%%"));
    }

    #[test]
    fn words_are_quoted_when_systemd_would_take_them_apart() {
        for (word, text) in
            [("a", "a"), ("", "\"\""), (";", "\";\""), ("a b", "\"a b\""), ("a\"\n", r#""a\"\n""#), ("%i$X", "%i$X")]
        {
            assert_eq!(quoted(word), text);
        }
        assert_eq!(literal("100% $HOME"), "100%% $$HOME");
    }

    proptest! {
        #[test]
        fn what_is_put_together_is_taken_apart_again(words in proptest::collection::vec("[^\\x00]{0,12}", 0..6)) {
            let value = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
            prop_assert!(!value.contains('\n'));
            prop_assert_eq!(split(&value).unwrap(), words);
        }

        #[test]
        fn any_text_is_taken_apart_without_panic(value in any::<String>()) {
            let _ = split(&value);
            let _ = check_specifiers(&value);
        }
    }
}
