package sqltext

import "strings"

// How much of a text is read, and kept. A program may write megabytes into one.
const (
	maxRead = 64 << 10
	maxKept = 4 << 10
	// maxRow bounds the tokens of a row that is compared with the next.
	maxRow = 1 << 10
)

const (
	value    = "?"
	ellipsis = "…"
)

// Redact returns a text without the values that are written in it: a string, blob or
// number is ?, a list of several of them is "?, …", and of rows of VALUES that are
// alike the first is left, with an ellipsis for the others. Comments go, white space
// is one blank. Keywords, names and parameters stay. What is in double quotes is a
// name or, where there is no such name, a string to SQLite: it stays if it looks like
// a name. The words behind PRAGMA key, and behind KEY in ATTACH, are secrets of
// builds that encrypt, and go. Of a text 64 KiB are read, of the result 4 KiB are
// kept; an ellipsis says that there was more.
//
// https://www.sqlite.org/quirks.html#double_quoted_string_literals_are_accepted
func Redact(sql string) string {
	tokens, whole := redacted(sql)
	var b strings.Builder
	for i, t := range foldRows(foldLists(tokens)) {
		if b.Len()+1+len(t.text) > maxKept {
			whole = false
			break
		}
		if t.blank && i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.text)
	}
	if !whole {
		b.WriteString(ellipsis)
	}
	return strings.ToValidUTF8(b.String(), "\uFFFD")
}

// token is one of the text that comes out.
type token struct {
	text  string
	blank bool // something was between it and the one before
	value bool // it stands for what was written there
}

// redacted returns the tokens of a text, with ? for each value, and whether that is
// all of it.
func redacted(sql string) (tokens []token, whole bool) {
	whole = len(sql) <= maxRead
	if !whole {
		sql = sql[:maxRead]
	}
	r := redactor{Lexer: NewLexer(sql)}
	for r.Next(); r.Kind != End; r.Next() {
		r.take()
	}
	return r.tokens, whole
}

// redactor goes through a text.
type redactor struct {
	Lexer
	tokens []token
	end    int    // of the last token in the text
	first  string // the statement's first word
	secret bool   // the next word is one
}

// add takes the current token over as text.
func (r *redactor) add(text string, isValue bool) {
	r.tokens = append(r.tokens, token{text, !r.adjoins(), isValue})
	r.end = r.Pos
}

// adjoins reports whether the current token follows the last one at once.
func (r *redactor) adjoins() bool { return r.end == r.Pos-len(r.Text) }

// take takes the current token over.
func (r *redactor) take() {
	switch r.Kind {
	case Word:
		r.takeWord()
	case Quoted:
		r.takeQuoted()
	case Number:
		if r.is(-1, "?") && !r.tokens[len(r.tokens)-1].value && r.adjoins() {
			r.add(r.Text, false) // ?1
			return
		}
		r.takeNumber()
	case Dot:
		if next := r.Pos; next < len(r.SQL) && isDigit(r.SQL[next]) { // .5
			r.takeNumber()
			return
		}
		r.add(r.Text, false)
	case Variable:
		name, _, _ := strings.Cut(r.Text, "(") // Tcl's $a(whatever)
		r.add(name, false)
	case Semicolon:
		r.first, r.secret = "", false
		r.add(r.Text, false)
	default:
		r.add(r.Text, false)
	}
}

// is reports whether the last token but n-1 is text, in any case.
func (r *redactor) is(n int, text string) bool {
	i := len(r.tokens) + n
	return i >= 0 && EqualFold(r.tokens[i].text, text)
}

func (r *redactor) takeWord() {
	switch {
	case r.first == "", EqualFold(r.first, "explain"), EqualFold(r.first, "query"), EqualFold(r.first, "plan"):
		r.first = r.Text
	}
	if (r.Text == "x" || r.Text == "X") && r.Pos < len(r.SQL) && r.SQL[r.Pos] == '\'' { // x'00'
		start := r.Pos - 1
		r.Next()
		r.Text = r.SQL[start:r.Pos]
		r.add(value, true)
		return
	}
	if r.secret {
		r.secret = false
		r.add(value, true)
		return
	}
	r.add(r.Text, false)
	switch {
	case EqualFold(r.first, "pragma"):
		for _, name := range []string{"key", "rekey", "hexkey", "hexrekey", "textkey", "textrekey"} {
			r.secret = r.secret || EqualFold(r.Text, name)
		}
	case EqualFold(r.first, "attach"):
		r.secret = EqualFold(r.Text, "key")
	}
}

// takeQuoted keeps names only.
func (r *redactor) takeQuoted() {
	text := r.Text
	closed := len(text) >= 2 && (text[len(text)-1] == text[0] || text[0] == '[' && text[len(text)-1] == ']')
	isValue := !closed || text[0] == '\'' || text[0] == '"' && !looksLikeName(text[1:len(text)-1]) || r.secret
	if isValue {
		text = value
	}
	r.secret = false
	r.add(text, isValue)
}

// takeNumber takes what is written as one number: 1.5e+3 is five tokens.
func (r *redactor) takeNumber() {
	start := r.Pos - len(r.Text)
	for r.Pos < len(r.SQL) {
		c, before := r.SQL[r.Pos], r.SQL[r.Pos-1]|0x20
		sign := (c == '+' || c == '-') && before == 'e' && !hexadecimal(r.SQL[start:r.Pos]) &&
			r.Pos+1 < len(r.SQL) && isDigit(r.SQL[r.Pos+1])
		if c != '.' && !sign && !IsIdent(c) {
			break
		}
		r.Pos++
	}
	r.Text = r.SQL[start:r.Pos]
	r.secret = false
	r.add(value, true)
}

func hexadecimal(s string) bool { return len(s) > 1 && s[0] == '0' && s[1]|0x20 == 'x' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// looksLikeName reports whether somebody would give this name to a column: a letter,
// then at most 63 letters, digits and underscores.
func looksLikeName(s string) bool {
	if s == "" || len(s) > 64 || !IsLetter(s[0]) {
		return false
	}
	for i := range len(s) {
		if !IsLetter(s[i]) && !isDigit(s[i]) && s[i] != '_' {
			return false
		}
	}
	return true
}

// foldLists leaves one value of each list of values: "?, …".
func foldLists(in []token) (out []token) {
	for i := 0; i < len(in); {
		out = append(out, in[i])
		n := i + 1
		for in[i].value && n+1 < len(in) && in[n].text == "," && in[n+1].value {
			n += 2
		}
		if n > i+1 {
			out = append(out, in[i+1], token{ellipsis, in[i+2].blank, true})
		}
		i = n
	}
	return out
}

// foldRows leaves one of the rows that are alike and follow each other: "(?), …".
func foldRows(in []token) (out []token) {
	for i := 0; i < len(in); {
		n := row(in, i)
		out = append(out, in[i:i+n]...)
		next := i + n
		for n > 1 && next < len(in) && in[next].text == "," && sameTokens(in[i:i+n], in[next+1:]) {
			next += 1 + n
		}
		if next > i+n {
			comma := in[i+n]
			out = append(out, comma, token{ellipsis, in[i+n+1].blank, true})
		}
		i = next
	}
	return out
}

// row returns how many tokens the parentheses that begin at i have, with what is
// inside them; 1 for another token, and where neither a value nor a parameter is
// inside.
func row(in []token, i int) int {
	if in[i].text != "(" {
		return 1
	}
	depth, values := 0, false
	for n := i; n < min(len(in), i+maxRow); n++ {
		switch in[n].text {
		case "(":
			depth++
		case ")":
			depth--
		}
		values = values || in[n].text == value
		if depth == 0 {
			if !values {
				break
			}
			return n + 1 - i
		}
	}
	return 1
}

// sameTokens reports whether in begins with the same texts as row.
func sameTokens(row, in []token) bool {
	if len(in) < len(row) {
		return false
	}
	for i, t := range row {
		if in[i].text != t.text {
			return false
		}
	}
	return true
}
