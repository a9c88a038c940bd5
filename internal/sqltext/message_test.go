package sqltext

import "testing"

func TestUnquoted(t *testing.T) {
	for in, want := range map[string]string{
		"":                                 "",
		"interrupted":                      "interrupted",
		`near "4111": syntax error`:        `near "…": syntax error`,
		`unrecognized token: "'4111`:       `unrecognized token: "…`,
		"no such column: 'a' or `b`, it's": "no such column: '…' or `…`, it'…",
		"UNIQUE constraint failed: t.a":    "UNIQUE constraint failed: t.a",
	} {
		if got := Unquoted(in); got != want {
			t.Errorf("Unquoted(%q) = %q, want %q", in, got, want)
		}
	}
}
