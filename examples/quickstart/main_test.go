package main

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	leakguard "github.com/sqlite-leakguard/sqlite-leakguard"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

func quickstart(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, &out, &errs)
	return code, out.String(), errs.String()
}

// markedLines returns "dir/file.go:line" of the lines that are marked with the
// comment "forgotten: what", by what.
func markedLines(t *testing.T, file string) map[string]string {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	marks := make(map[string]string)
	for i, line := range strings.Split(string(source), "\n") {
		if _, what, ok := strings.Cut(line, "// forgotten: "); ok {
			marks[what] = fmt.Sprintf("quickstart/%s:%d", file, i+1)
		}
	}
	return marks
}

// wantFound checks that every marked line was named, with what was undone.
func wantFound(t *testing.T, out, file string, want map[string]string) {
	t.Helper()
	marks := markedLines(t, file)
	if len(marks) != len(want) {
		t.Errorf("%d lines of %s are marked, want %d", len(marks), file, len(want))
	}
	for what, line := range want {
		re := regexp.MustCompile(`(?m)^  found +` + regexp.QuoteMeta(marks[what]) + ` +` + line + `$`)
		if !re.MatchString(out) {
			t.Errorf("no line like %q for %s in\n%s", re, what, out)
		}
	}
}

var allPlanted = map[string]string{
	"rows":        `rows +(proven|leak_after) +closed`,
	"connection":  `connection +leak_after +reported.*`,
	"statement":   `statement +proven +closed`,
	"transaction": `transaction +leak_after +rolled back`,
	"raw BEGIN":   `transaction +in_pool +rolled back`,
}

func wantDemonstration(t *testing.T, out string) {
	t.Helper()
	wantFound(t, out, "forget.go", allPlanted)
	// On a slow machine the guard may be faster than the writer.
	if before, _, _ := strings.Cut(out, "The guard:"); strings.Contains(before, "a writer            database is locked") {
		re := regexp.MustCompile(`(?m)^  who locked it       ` + regexp.QuoteMeta(markedLines(t, "forget.go")["transaction"]) + `: transaction on \S+ \(write lock, open for \d+\w+\)$`)
		if !re.MatchString(before) {
			t.Errorf("no line like %q in\n%s", re, out)
		}
	}
	for _, want := range []string{
		"placed 100 orders", "Leaks found: 0\n",
		"late Commit         leakguard: transaction rolled back after ",
		"opened at " + markedLines(t, "forget.go")["transaction"],
		"a writer            works\n  the WAL checkpoint  works (busy=0)\n",
		"leakguard report, ", "open suspect", "leaks that are over",
		"All 5 planted leaks were found at the right line.",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}

func TestDemonstration(t *testing.T) {
	code, out, errs := quickstart()
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d: %s\n%s", code, errs, out)
	}
	wantDemonstration(t, out)
}

// As a user would: a program of its own, twice on one file given by a DSN, then
// the read-only part on what it left.
func TestProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "quickstart")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := filepath.Join(dir, "some shop#1.db")
	for range 2 {
		out, err := exec.Command(program, "-dsn", "file:"+uriPath(file)+"?_leakguard_name=mine").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		wantDemonstration(t, string(out))
	}
	out, err := exec.Command(program, "-db", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wantInspection(t, string(out))

	out, err = exec.Command(program, "-db", program).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("on a file that is no database: %v, want exit code 2\n%s", err, out)
	}
}

func wantInspection(t *testing.T, out string) {
	t.Helper()
	wantFound(t, out, "inspect.go", map[string]string{"reader": `rows: leak_after, closed`})
	for _, want := range []string{
		"has 2 tables:", "shop_orders    100 rows", "shop_products  20 rows",
		`A slow reader of "shop_orders"`,
		"Next  false\n  Err   leakguard: rows closed after ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}

// existing makes a database with two tables.
func existing(t *testing.T, file, params string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite-leakguard", file+params)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	_, err = db.Exec(`
		CREATE TABLE shop_products (id);
		CREATE TABLE shop_orders (id);
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
		INSERT INTO shop_orders SELECT i FROM n;
		INSERT INTO shop_products SELECT id FROM shop_orders WHERE id <= 20`)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// Reading changes no byte of the file and leaves no file beside it.
func TestInspectionLeavesNothingBehind(t *testing.T) {
	for name, params := range map[string]string{"rollback journal": "", "WAL": "?_journal_mode=WAL"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "a.db")
			existing(t, file, params).Close()
			before := folder(t, dir)
			code, out, errs := quickstart("-db", file)
			if code != 0 || errs != "" {
				t.Fatalf("exit code %d: %s\n%s", code, errs, out)
			}
			wantInspection(t, out)
			if after := folder(t, dir); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
		})
	}
}

// What another process has written and not checkpointed is read.
func TestInspectionOfDatabaseInUse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.db")
	existing(t, file, "?_journal_mode=WAL")
	main, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	code, out, errs := quickstart("-db", file)
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d: %s\n%s", code, errs, out)
	}
	wantInspection(t, out)
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(main, after) {
		t.Errorf("the file was written to (%v)", err)
	}
}

func TestInspectionOfOddDatabase(t *testing.T) {
	file := filepath.Join(t.TempDir(), "odd?.db")
	db, err := sql.Open("sqlite-leakguard", "file:"+uriPath(file))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE \"a\"\"b\x1b\" (id); PRAGMA writable_schema = on;" +
		"INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING nothing_here')"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	code, out, errs := quickstart("-db", file)
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d: %s\n%s", code, errs, out)
	}
	for _, want := range []string{`"a\"b\x1b"  0 rows`, "no such module: nothing_here"} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}

func folder(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %d bytes %x\n", e.Name(), len(content), content[:min(len(content), 100)])
	}
	return b.String()
}

func TestMisuse(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-nonsense"}, "flag provided but not defined: -nonsense"},
		{[]string{"shop.db"}, `unexpected argument "shop.db"`},
		{[]string{"-db", "a", "-dsn", "b"}, "give one of them"},
		{[]string{"-db", filepath.Join(dir, "nowhere")}, "there is no file"},
		{[]string{"-db", dir}, "is not a file"},
		{[]string{"-db", file("empty", "")}, "is not a SQLite database"},
		{[]string{"-db", file("text", strings.Repeat("not a database ", 100))}, "is not a SQLite database"},
		{[]string{"-db", file("cut", "SQLite format 3\x00"+strings.Repeat("\xff", 200))}, "file is not a database"},
		{[]string{"-dsn", ""}, "-dsn is empty"},
		{[]string{"-dsn", ":memory:"}, "in memory"},
		{[]string{"-dsn", filepath.Join(dir, "nowhere", "a.db")}, "unable to open database file"},
		{[]string{"-dsn", filepath.Join(dir, "a.db") + "?_leakguard_leak_after=soon"}, `_leakguard_leak_after="soon"`},
		{[]string{"-dsn", filepath.Join(dir, "a.db") + "?_leakguard=observe"}, "want enforce"},
		{[]string{"-dsn", file("notes", strings.Repeat("not a database ", 100))}, "file is not a database"},
	} {
		code, out, errs := quickstart(c.args...)
		if code != 2 || !strings.Contains(errs, c.want) || out != "" {
			t.Errorf("%q: exit code %d, output %q, errors %q; want 2, none, %q", c.args, code, out, errs, c.want)
		}
	}
	if code, _, errs := quickstart("-h"); code != 0 || !strings.Contains(errs, "-dsn") {
		t.Errorf("-h: exit code %d, %q", code, errs)
	}
}

// The program is not content with a guard that does not find everything.
func TestVerdict(t *testing.T) {
	line := func(n int) tracker.Frame { return tracker.Frame{Function: "f", File: "x/y.go", Line: n} }
	tx := plant{what: "forgetTx", kind: tracker.KindTransaction, site: line(1), undone: "rolled back"}
	late := &leakguard.ReapedError{}
	seen := func(at int, last tracker.EventType) *told {
		return &told{leak: tracker.Leak{Kind: tracker.KindTransaction}, last: last, from: line(at).String()}
	}
	full := errors.New("full")
	for _, c := range []struct {
		name                   string
		told                   *told
		commit, writes, resets error
		want                   string
	}{
		{name: "fine", told: seen(1, tracker.EventReaped), commit: late},
		{name: "nothing", commit: late, want: "transaction in forgetTx, planted at x/y.go:1, was not found within 20s"},
		{name: "wrong line", told: seen(2, tracker.EventReaped), commit: late, want: "transaction in forgetTx was planted at x/y.go:1, but the guard named x/y.go:2"},
		{name: "not undone", told: seen(1, tracker.EventSuspect), commit: late, want: "transaction in forgetTx, planted at x/y.go:1, was found but not undone"},
		{name: "committed", told: seen(1, tracker.EventReaped), want: "the late Commit returned <nil>, not an error that says why"},
		{name: "no writer", told: seen(1, tracker.EventReaped), commit: late, writes: full, want: "after reaping, a writer fails: full"},
		{name: "no checkpoint", told: seen(1, tracker.EventReaped), commit: late, resets: full, want: "after reaping, the checkpoint fails: full"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &watch{}
			if c.told != nil {
				w.leaks = append(w.leaks, c.told)
			}
			var out bytes.Buffer
			got := ""
			if err := verdict(&out, w, []plant{tx}, c.commit, c.writes, c.resets); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestFileChangedWhileRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.db")
	existing(t, file, "?_journal_mode=WAL").Close()
	_, changed, err := readOnly(file)
	if err != nil || changed == nil || changed() {
		t.Fatalf("changed = %v, %v; want false", changed != nil && changed(), err)
	}
	if err := os.Chtimes(file, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if !changed() {
		t.Error("a new time of the file is no change")
	}
}

func TestWrongBlame(t *testing.T) {
	tx := plant{what: "forgetTx", kind: tracker.KindTransaction, site: tracker.Frame{Function: "f", File: "x/y.go", Line: 1}}
	other := &tracker.Blame{Holders: []tracker.Holder{{Held: tracker.Held{Kind: tracker.KindTransaction}}}}
	for want, blame := range map[string]*tracker.Blame{
		"did not say by whom":         lastBlame(time.Now().Add(time.Hour)),
		"the guard did not say":       {},
		"planted at x/y.go:1, locked": other,
	} {
		var out bytes.Buffer
		if err := printBlame(&out, blame, []plant{tx}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
