package sqltext

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestRedact(t *testing.T) {
	for _, c := range []struct{ sql, want string }{
		{"", ""},
		{"SELECT 1", "SELECT ?"},
		{"select  *\n\tfrom t where a = 'it''s' and b<>5", "select * from t where a = ? and b<>?"},
		{"SELECT a+1, a-1, -1, +.5, 1.5e+3, 1e-5, 0xFFe+1, 1_000", "SELECT a+?, a-?, -?, +?, …+?, …"},
		{"SELECT x'00', X'ab', x 'ab', xx'ab'", "SELECT ?, …, x ?, xx?"},
		{"SELECT x'1', 'a', 2.5, t.a", "SELECT ?, …, t.a"},
		{"SELECT [col 1], `col 2`, \"col_3\", \"not a name\", \"4111111111111111\", \"a\"\"b\"", "SELECT [col 1], `col 2`, \"col_3\", ?, …"},
		{"SELECT ?, ?1, :name, @name, $name, $a::b(secret), #1", "SELECT ?, ?1, :name, @name, $name, $a::b, #1"},
		{"SELECT a FROM t WHERE b IN (1,2 , 3) AND c IN(?,?)", "SELECT a FROM t WHERE b IN (?,…) AND c IN(?,?)"},
		{"INSERT INTO t VALUES(1, 'a'), (2, 'b'), (3, 'c')", "INSERT INTO t VALUES(?, …), …"},
		{"INSERT INTO t(a, b) VALUES (1, now()), (2, now()), (DEFAULT, 3)", "INSERT INTO t(a, b) VALUES (?, now()), …, (DEFAULT, ?)"},
		{"INSERT INTO t VALUES(?, ?), (?, ?), (?, ?)", "INSERT INTO t VALUES(?, ?), …"},
		{"SELECT (a), (a), (a)", "SELECT (a), (a), (a)"},
		{"SELECT 1 -- 4111 1111\n, a /* secret */ FROM t", "SELECT ? , a FROM t"},
		{"SELECT 'open", "SELECT ?"},
		{`SELECT "open`, "SELECT ?"},
		{"SELECT [open", "SELECT ?"},
		{"SELECT /* open", "SELECT"},
		{"SELECT 'a\x00b' FROM t", "SELECT ?"},
		{"PRAGMA key = secret; PRAGMA cache_size = 10; PRAGMA journal_mode=WAL", "PRAGMA key = ?; PRAGMA cache_size = ?; PRAGMA journal_mode=WAL"},
		{"EXPLAIN PRAGMA rekey(secret)", "EXPLAIN PRAGMA rekey(?)"},
		{"explain query plan pragma hexkey=abcdef", "explain query plan pragma hexkey=?"},
		{`PRAGMA key="secret"`, "PRAGMA key=?"},
		{"ATTACH 'a.db' AS b KEY secret", "ATTACH ? AS b KEY ?"},
		{"SELECT key FROM secrets", "SELECT key FROM secrets"},
		{"SELECT 'ä\xff', ä\xff FROM t", "SELECT ?, ä\uFFFD FROM t"},
		{"SELECT 1.", "SELECT ?"},
		{"SELECT 1.2.3, a.5, 7e, 7e+", "SELECT ?, a?, …+"},
	} {
		if got := Redact(c.sql); got != c.want {
			t.Errorf("Redact(%q)\n got %q\nwant %q", c.sql, got, c.want)
		}
	}
}

func TestRedactLong(t *testing.T) {
	in := "SELECT " + strings.Repeat("a, ", 30000) + "b"
	if got := Redact(in); len(got) > maxKept+len(ellipsis) || !strings.HasSuffix(got, ellipsis) {
		t.Errorf("%d bytes, ends in %q", len(got), got[len(got)-10:])
	}
	// Beyond what is read: a long list is one value, and it is said that there is more.
	in = "SELECT a FROM t WHERE a IN (" + strings.Repeat("4111111111111111, ", 30000) + "1)"
	if got := Redact(in); got != "SELECT a FROM t WHERE a IN (?, …,…" && got != "SELECT a FROM t WHERE a IN (?, ……" {
		t.Errorf("%q", got)
	}
	if got := Redact("SELECT '" + strings.Repeat("secret", 30000)); got != "SELECT ?…" {
		t.Errorf("%q", got)
	}
}

// Whatever is written, it takes time in proportion.
func TestRedactTime(t *testing.T) {
	for _, part := range []string{"(", "(1", "(1),", "((1),", "'", "x'", "1,", "?,(", "[", "/*", "--"} {
		in := strings.Repeat(part, maxRead)
		began := time.Now()
		Redact(in)
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("%q again and again: %v", part, d)
		}
	}
}

// secretText makes a text of the grammar's words with secrets wherever a value may
// stand.
func secretText(rng *rand.Rand, secret string) string {
	parts := []func() string{
		func() string { return "'" + secret + "'" },
		func() string { return "'it''s " + secret + "'" },
		func() string { return "x'" + secret + "'" },
		func() string { return secret }, // a number
		func() string { return "-" + secret + ".25" },
		func() string { return "." + secret },
		func() string { return "1." + secret + "e+5" },
		func() string { return "0x" + secret },
		func() string { return `"` + secret + `"` },
		func() string { return `"card no ` + secret + `"` },
		func() string { return "-- " + secret + "\n" },
		func() string { return "/* " + secret + " */" },
		func() string { return "SELECT" },
		func() string { return "t.a" },
		func() string { return "[col 1]" },
		func() string { return "`b`" },
		func() string { return "?" },
		func() string { return ":name" },
		func() string { return "(" },
		func() string { return ")" },
		func() string { return "," },
		func() string { return "=" },
		func() string { return ";" },
		func() string { return "x" },
	}
	var b strings.Builder
	for range rng.IntN(30) {
		b.WriteString(parts[rng.IntN(len(parts))]())
		b.WriteString([]string{" ", "\n", "\t "}[rng.IntN(3)])
	}
	return b.String()
}

func TestRedactSecrets(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 20000 {
		secret := fmt.Sprint(4111_0000_0000_0000 + rng.Int64N(1e12))
		in := secretText(rng, secret)
		if got := Redact(in); strings.Contains(got, secret) {
			t.Fatalf("seed %d: %q\nbecame %q", seed, in, got)
		}
	}
}

// FuzzRedact: no value of a text is in what comes out, which is short, valid, and the
// same again.
func FuzzRedact(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		f.Add(secretText(rng, "4111111111111111"))
	}
	f.Add("INSERT INTO t VALUES(1, 'a'), (2, 'b'), (3, 'c')")
	f.Add("PRAGMA key = 'secret'")
	f.Fuzz(func(t *testing.T, in string) {
		out := Redact(in)
		if len(out) > maxKept+len(ellipsis) || !utf8.ValidString(out) {
			t.Fatalf("%d bytes: %q", len(out), out)
		}
		read := in[:min(len(in), 1<<10)] // comparing takes time in square
		values, rest := map[string]bool{}, ""
		for l := NewLexer(read); ; {
			l.Next()
			if l.Kind == End {
				break
			}
			if l.Kind == Quoted && (l.Text[0] == '\'' || l.Text[0] == '"' && !looksLikeName(strings.Trim(l.Text, `"`))) ||
				l.Kind == Number && len(l.Text) > 4 && !strings.HasSuffix(rest, "?\x01") {
				values[strings.Trim(l.Text, `'"`)] = true
				rest += "\x01"
				continue
			}
			rest += l.Text + "\x01"
		}
		for v := range values {
			if len(v) > 4 && !strings.ContainsFunc(v, func(r rune) bool { return r > 127 || !IsIdent(byte(r)) }) && !strings.Contains(rest, v) && strings.Contains(out, v) {
				t.Fatalf("%q is in what became of %q: %q", v, in, out)
			}
		}
	})
}
