// Package sqltext reads SQL texts as SQLite does, without SQLite: what a word of it is,
// what the text may do to a connection, and the text without the values in it.
package sqltext

import "strings"

// Kind is what kind of token a word of a text is.
type Kind uint8

const (
	End      Kind = iota
	Word          // a keyword or bare identifier
	Quoted        // 'x', "x", `x` or [x]
	Number        // begins with a digit: of 1.5e+3 the parts 1 and 5e and 3
	Variable      // $a, @a, :a or #1; of ?1 the 1 is a Number
	Semicolon
	Dot
	Equals
	Paren // the opening one
	Other
)

// Lexer splits a text into tokens as SQLite's tokenizer does. It may accept what
// SQLite rejects, because SQLite runs nothing from a statement with an error on.
type Lexer struct {
	SQL  string
	Pos  int    // where the next token is looked for
	Kind Kind   // of the current token
	Text string // the current token as written
}

// NewLexer cuts sql at the first NUL byte, where SQLite stops reading.
func NewLexer(sql string) Lexer {
	if nul := strings.IndexByte(sql, 0); nul >= 0 {
		sql = sql[:nul]
	}
	return Lexer{SQL: sql}
}

// Next reads the next token, following sqlite3GetToken in SQLite's tokenize.c.
func (l *Lexer) Next() {
	s := l.SQL
	i := SkipSpace(s, l.Pos)
	if i == len(s) {
		l.Kind, l.Text, l.Pos = End, "", i
		return
	}
	l.Kind = Other
	j := i + 1
	switch c := s[i]; c {
	case ';':
		l.Kind = Semicolon
	case '.':
		l.Kind = Dot
	case '=':
		l.Kind = Equals
		if j < len(s) && s[j] == '=' {
			j++
		}
	case '(':
		l.Kind = Paren
	case '\'', '"', '`':
		l.Kind = Quoted
		j = skipQuoted(s, j, c)
	case '[':
		l.Kind = Quoted
		if n := strings.IndexByte(s[j:], ']'); n >= 0 {
			j += n + 1
		} else {
			j = len(s)
		}
	case '$', '@', ':', '#':
		l.Kind = Variable
		j = skipVariable(s, j)
	default:
		if !IsIdent(c) {
			break
		}
		l.Kind = Number
		if c < '0' || c > '9' {
			l.Kind = Word
		}
		for j < len(s) && IsIdent(s[j]) {
			j++
		}
	}
	l.Text, l.Pos = s[i:j], j
}

// SkipSpace returns the index of the first byte from i on that is in neither
// white space nor a comment (https://www.sqlite.org/lang_comment.html). A
// vertical tab is white space to SQLite only after other white space and an
// error elsewhere, a byte order mark is white space everywhere.
func SkipSpace(s string, i int) int {
	for i < len(s) {
		switch c := s[i]; {
		case isSpace(c):
			i++
		case c == '-' && strings.HasPrefix(s[i:], "--"):
			n := strings.IndexByte(s[i:], '\n')
			if n < 0 {
				return len(s)
			}
			i += n + 1
		case c == '/' && strings.HasPrefix(s[i:], "/*"):
			n := strings.Index(s[i+2:], "*/")
			if n < 0 {
				return len(s)
			}
			i += n + 4
		case c == 0xEF && strings.HasPrefix(s[i:], "\xEF\xBB\xBF"):
			i += 3
		default:
			return i
		}
	}
	return i
}

// skipQuoted returns the index behind the quote that closes the one before i.
// A doubled quote stands for itself.
func skipQuoted(s string, i int, quote byte) int {
	for {
		n := strings.IndexByte(s[i:], quote)
		if n < 0 {
			return len(s)
		}
		i += n + 1
		if i == len(s) || s[i] != quote {
			return i
		}
		i++
	}
}

// skipVariable returns the index behind the name of the parameter whose first
// byte is before i. As in Tcl, the name can have a part in parentheses, which
// holds anything but white space, quotes and semicolons too: $a(';).
// See https://www.sqlite.org/lang_expr.html#varparam.
func skipVariable(s string, i int) int {
	for n := 0; i < len(s); i++ {
		switch c := s[i]; {
		case IsIdent(c):
			n++
		case c == '(' && n > 0:
			for i++; i < len(s) && s[i] != ')' && !isSpace(s[i]); i++ {
			}
			if i < len(s) && s[i] == ')' {
				i++
			}
			return i
		case c == ':' && i+1 < len(s) && s[i+1] == ':':
			i++
		default:
			return i
		}
	}
	return i
}

// IsBlank reports whether there is nothing but white space in s, as SQLite has it.
func IsBlank(s string) bool {
	for i := range len(s) {
		if !isSpace(s[i]) {
			return false
		}
	}
	return true
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// IsLetter reports whether c is one of A-Z and a-z.
func IsLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isQuote(c byte) bool { return c == '\'' || c == '"' || c == '`' || c == '[' }

// IsIdent reports whether c can be inside an identifier.
func IsIdent(c byte) bool {
	return IsLetter(c) || '0' <= c && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

// EqualFold reports whether s and lower are equal but for the case of A-Z in s.
// Unlike strings.EqualFold it leaves other letters alone, as SQLite does.
func EqualFold(s, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := range len(s) {
		if fold(s[i]) != lower[i] {
			return false
		}
	}
	return true
}

func fold(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// SameName reports whether the name, as written, is lower (which needs no
// quotes). It is Name(name) == lower without an allocation.
func SameName(name, lower string) bool {
	if len(name) == len(lower)+2 && isQuote(name[0]) {
		name = name[1 : len(name)-1]
	}
	return EqualFold(name, lower)
}

// Name returns the name, as written, in the form in which SQLite compares
// it: without its quotes and with A-Z in lower case.
func Name(name string) string {
	if len(name) >= 2 && isQuote(name[0]) {
		quote := name[:1]
		name = name[1 : len(name)-1]
		if quote != "[" {
			name = strings.ReplaceAll(name, quote+quote, quote)
		}
	}
	b := []byte(name)
	for i, c := range b {
		b[i] = fold(c)
	}
	return string(b)
}
