package leakguard

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// docKey is a row of a table of DSN keys.
type docKey struct{ key, value string }

// docKeysWanted are the rows that the parameter table asks for.
func docKeysWanted() []docKey {
	def := Config{Policy: tracker.DefaultPolicy()}
	var want []docKey
	for _, p := range dsnParams {
		value := p.get(&def)
		if value == "" {
			value = "file and number" // what the connector makes of no name
		}
		want = append(want, docKey{p.key, value})
	}
	return want
}

// compareDocKeys reports keys and defaults that differ. The order in which the
// text explains them is its own.
func compareDocKeys(t *testing.T, file string, got []docKey) {
	t.Helper()
	want := docKeysWanted()
	for _, d := range got {
		if !slices.Contains(want, d) {
			t.Errorf("%s: key %q with default %q is not what dsn.go says", file, d.key, d.value)
		}
	}
	for _, d := range want {
		if n := len(slices.DeleteFunc(slices.Clone(got), func(g docKey) bool { return g != d })); n != 1 {
			t.Errorf("%s: key %q with default %q stands there %d times, want once", file, d.key, d.value, n)
		}
	}
}

func readDoc(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDocNamesEveryKey(t *testing.T) {
	columns := regexp.MustCompile(` {2,}`)
	var got []docKey
	for line := range strings.Lines(readDoc(t, "doc.go")) {
		row, ok := strings.CutPrefix(line, "//\t")
		if !ok || !strings.HasPrefix(row, dsnPrefix) {
			continue
		}
		cells := columns.Split(strings.TrimSpace(row), -1)
		if len(cells) != 3 || cells[2] == "" {
			t.Errorf("not a key, a default and a consequence: %q", line)
			continue
		}
		got = append(got, docKey{cells[0], cells[1]})
	}
	compareDocKeys(t, "doc.go", got)
}

func TestReadmeNamesEveryKey(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `(_leakguard[a-z_]*)` \\| ([^|]*) \\| ([^|]+) \\|$")
	var got []docKey
	for _, m := range row.FindAllStringSubmatch(readDoc(t, "README.md"), -1) {
		got = append(got, docKey{m[1], strings.Trim(m[2], "`")})
	}
	compareDocKeys(t, "README.md", got)
}

// The modes are explained by their names.
func TestDocNamesEveryMode(t *testing.T) {
	for _, file := range []string{"doc.go", "README.md"} {
		text := readDoc(t, file)
		for m := tracker.Enforce; m <= tracker.Off; m++ {
			if !strings.Contains(text, m.String()) {
				t.Errorf("%s does not explain mode %s", file, m)
			}
		}
	}
}
