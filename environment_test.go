package leakguard

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

func TestParseEnvironment(t *testing.T) {
	const known = "want enforce, observe, basic or off, or a value for one of name, stacks, sql, log, max_lifetime, max_idle, report_after, collect, leak_after, tx_timeout, tx_limit, " +
		"max_access, max_statements, max_pools, wal_limit, conn_memory, leak_memory, pressure, expire, check_interval, memory_interval"
	for _, c := range []struct {
		text  string
		rules string // pool/key=value, in force
		items string // "text" or "text: error", one a line
	}{
		{"", "", ""},
		{" , ,", "", ""},
		{"observe", "/_leakguard=observe", "observe"},
		{" off ,", "/_leakguard=off", "off"},
		{"observe,leak_after=30s", "/_leakguard=observe /_leakguard_leak_after=30s", "observe\nleak_after=30s"},
		{"leak_after = 30s", "/_leakguard_leak_after=30s", "leak_after = 30s"},
		{"pressure=85%,conn_memory=1.5GiB", "/_leakguard_pressure=85% /_leakguard_conn_memory=1.5GiB", "pressure=85%\nconn_memory=1.5GiB"},
		{"pool=a.db:off,pool=b:c.db: tx_limit=1h", "a.db/_leakguard=off b:c.db/_leakguard_tx_limit=1h", "pool=a.db:off\npool=b:c.db: tx_limit=1h"},
		{"observe,pool=a:observe", "/_leakguard=observe a/_leakguard=observe", "observe\npool=a:observe"},

		{"observed,leak_after=30s", "/_leakguard_leak_after=30s", "observed: " + known + "\nleak_after=30s"},
		{"leak_after=1d", "", "leak_after=1d: want a duration of 1ms or more such as 90s, 10m or 24h (units ms, s, m and h), or 0 to switch it off"},
		{"leak_after", "", "leak_after: want a value for it: leak_after=…"},
		{"leak_afer=1s", "", `leak_afer=1s: unknown key "leak_afer": did you mean leak_after? ` + known},
		{"_leakguard_leak_after=1s", "", `_leakguard_leak_after=1s: unknown key "_leakguard_leak_after": did you mean leak_after? ` + known},
		{"mode=observe", "", `mode=observe: unknown key "mode": did you mean one of enforce, observe, basic and off by itself? ` + known},
		{"_leakguard=observe", "", `_leakguard=observe: unknown key "_leakguard": did you mean one of enforce, observe, basic and off by itself? ` + known},
		{"colour=red", "", `colour=red: unknown key "colour": ` + known},
		{"=1", "", `=1: unknown key "": did you mean one of enforce, observe, basic and off by itself? ` + known},
		{"pool=a.db", "", "pool=a.db: want pool=NAME: and behind it what is for that pool"},
		{"pool=:off", "", "pool=:off: want pool=NAME: and behind it what is for that pool"},
		{"off,observe", "/_leakguard=off", `off` + "\n" + `observe: given twice, first as "off": want each key once`},
	} {
		e := parseEnvironment(c.text)
		var rules, items []string
		if e != nil {
			for _, r := range e.rules {
				rules = append(rules, r.pool+"/"+r.param.key+"="+r.value)
			}
			for _, i := range e.items {
				if i.Error != "" {
					i.Text += ": " + i.Error
				}
				items = append(items, i.Text)
			}
		}
		if got := strings.Join(rules, " "); got != c.rules {
			t.Errorf("%q: rules %s, want %s", c.text, got, c.rules)
		}
		if got := strings.Join(items, "\n"); got != c.items {
			t.Errorf("%q: items\n%s\nwant\n%s", c.text, got, c.items)
		}
	}
}

// Every key of the DSN works in the environment by itself.
func TestEnvironmentKnowsEveryKey(t *testing.T) {
	other := Config{Mode: tracker.Observe, Name: "n", NoStacks: true, SQL: tracker.SQLOff, NoLog: true, Policy: tracker.Policy{
		MaxLifetime: time.Second, MaxIdle: time.Second, ReportAfter: time.Second, LeakAfter: time.Second, TxTimeout: time.Second, TxLimit: time.Second,
		MaxAccess: 1, MaxStatements: 1, MaxPools: 1, WALLimit: 1, ConnMemory: 1, LeakMemory: 1, Pressure: 0.5, Expire: tracker.Close,
		CheckInterval: time.Second, MemoryInterval: time.Second,
	}}
	def := Config{Policy: tracker.DefaultPolicy()}
	for _, p := range dsnParams {
		value := p.get(&other)
		if value == p.get(&def) {
			t.Errorf("%s: want a value here that is not the default", p.key)
		}
		text := value
		if p.key != dsnPrefix {
			text = strings.TrimPrefix(p.key, dsnPrefix+"_") + "=" + value
		}
		c := def
		e := parseEnvironment(text)
		pinned := e.apply(&c, "x")
		if p.get(&c) != value || len(pinned) != 1 || e.items[0].Error != "" {
			t.Errorf("%s: %s, pinned %v, %v", text, p.get(&c), pinned, e.items)
		}
	}
}

func TestEnvironmentApply(t *testing.T) {
	e := parseEnvironment("pool=a.db-2:leak_after=1s,leak_after=2s,pool=a.db:leak_after=3s,pool=a.db:observe,name=n,pool=n:tx_limit=1h")
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"b.db"}, "?_leakguard_name=n&_leakguard_leak_after=2s&_leakguard_tx_limit=1h"},
		{[]string{"a.db"}, "?_leakguard=observe&_leakguard_name=n&_leakguard_leak_after=3s&_leakguard_tx_limit=1h"},
		{[]string{"a.db-2"}, "?_leakguard_name=n&_leakguard_leak_after=1s&_leakguard_tx_limit=1h"},
	} {
		cfg := Config{Policy: tracker.DefaultPolicy()}
		e.apply(&cfg, c.names...)
		if got := cfg.FormatDSN(); got != c.want {
			t.Errorf("%v: %s, want %s", c.names, got, c.want)
		}
	}
	var none *environment
	cfg := Config{Policy: tracker.DefaultPolicy()}
	if none.apply(&cfg, "a") != nil || cfg.FormatDSN() != "" || none.names("a") {
		t.Errorf("no environment: %+v", cfg)
	}
	none.tell(nil, nil)
}

// withEnvironment runs the calling test again, in a process of its own with LEAKGUARD
// set to text: it returns true there, and false in the parent, with what the process
// wrote.
func withEnvironment(t *testing.T, text string) (child bool, out string) {
	t.Helper()
	if os.Getenv("LEAKGUARD_TEST_CHILD") == t.Name() {
		return true, ""
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.timeout=30s")
	cmd.Env = append(os.Environ(), "LEAKGUARD_TEST_CHILD="+t.Name(), "LEAKGUARD="+text)
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("LEAKGUARD=%s: %v\n%s", text, err, b)
	}
	return false, string(b)
}

// openGuarded opens a pool by the driver's name alone, as a program does.
func openGuarded(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite-leakguard", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Exec("CREATE TABLE IF NOT EXISTS t (a)"); err != nil {
		t.Fatal(err)
	}
	return db
}

func poolNamed(t *testing.T, name string) *tracker.Pool {
	t.Helper()
	for _, p := range tracker.Default().Pools() {
		if p.Name() == name {
			return p
		}
	}
	t.Fatalf("no pool %s", name)
	return nil
}

func TestEnvironmentBeatsAll(t *testing.T) {
	child, out := withEnvironment(t, "observe,leak_after=30s,leak_afer=7s,pool=other.db:basic,pool=app.db-2:tx_limit=9m,pool=gone.db-1:off")
	if !child {
		for _, want := range []string{
			`INFO setting changed component=leakguard pool=app.db-1 reason="environment variable LEAKGUARD: observe,leak_after=30s,pool=other.db:basic,pool=app.db-2:tx_limit=9m,pool=gone.db-1:off"`,
			`ERROR setting ignored component=leakguard pool=app.db-1 reason="\"leak_afer=7s\" of the environment variable LEAKGUARD is ignored: unknown key \"leak_afer\": did you mean leak_after?`,
		} {
			if strings.Count(out, want) != 1 {
				t.Errorf("want once %s in\n%s", want, out)
			}
		}
		return
	}
	dir := t.TempDir()
	app := "file:" + filepath.Join(dir, "app.db") + "?_leakguard=enforce&_leakguard_leak_after=10m&_leakguard_tx_timeout=8m"
	openGuarded(t, app)
	p := poolNamed(t, "app.db-1")
	if l := p.Policy(); p.Mode() != tracker.Observe || l.LeakAfter != 30*time.Second || l.TxTimeout != 8*time.Minute || l.TxLimit != 0 {
		t.Errorf("mode %v, %+v", p.Mode(), l)
	}
	openGuarded(t, app)
	p = poolNamed(t, "app.db-2")
	if l := p.Policy(); p.Mode() != tracker.Observe || l.TxLimit != 9*time.Minute || l.LeakAfter != 30*time.Second || l.TxTimeout != 8*time.Minute {
		t.Errorf("by its number: mode %v, %+v", p.Mode(), l)
	}
	if n := len(tracker.Default().Pools()); n != 2 {
		t.Errorf("%d pools", n)
	}
	openGuarded(t, "file:"+filepath.Join(dir, "gone.db"))
	if guarded, off := tracker.Default().Opened(); off != 1 {
		t.Errorf("%d guarded, %d off", guarded, off)
	}

	// Config gives way too, and what the environment has set is not the program's.
	tr := tracker.New(tracker.Options{})
	own := tracker.DefaultPolicy()
	own.LeakAfter = time.Hour
	c, err := NewConnector(Config{DSN: filepath.Join(dir, "other.db"), Mode: tracker.Enforce, Policy: own, Tracker: tr})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	own.MaxAccess = 7
	if err := c.SetPolicy(own); err != nil {
		t.Fatal(err)
	}
	other := tr.Pools()[0]
	if l := other.Policy(); other.Mode() != tracker.Basic || l.LeakAfter != 30*time.Second || l.MaxAccess != 7 {
		t.Errorf("mode %v, %+v", other.Mode(), l)
	}
	if err := other.SetMode(tracker.Enforce); err != nil || other.Mode() != tracker.Basic {
		t.Errorf("mode %v, %v", other.Mode(), err)
	}
	if err := other.Operate(map[string]string{"mode": "enforce", "leak_after": "40s"}); err != nil || other.Mode() != tracker.Enforce || other.Policy().LeakAfter != 40*time.Second {
		t.Errorf("the operator: mode %v, %+v, %v", other.Mode(), other.Policy(), err)
	}
	for _, s := range []tracker.Stats{Stats(), tr.Stats()} {
		if len(s.Environment) != 6 || s.Environment[2].Error == "" || s.Environment[1] != (tracker.EnvironmentItem{Text: "leak_after=30s"}) {
			t.Errorf("%+v", s.Environment)
		}
	}
}

// The switch that takes the guard out: nothing is seen, and the program runs.
func TestEnvironmentOff(t *testing.T) {
	child, out := withEnvironment(t, "off")
	if !child {
		if want := `INFO setting changed component=leakguard reason="environment variable LEAKGUARD: off"`; strings.Count(out, want) != 1 {
			t.Errorf("want once %s in\n%s", want, out)
		}
		return
	}
	db := openGuarded(t, "file:"+filepath.Join(t.TempDir(), "app.db")+"?_leakguard=enforce")
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Raw(func(c any) error {
		if fmt.Sprintf("%T", c) != "*sqlite3.SQLiteConn" {
			t.Errorf("%T", c)
		}
		return nil
	})
	if guarded, off := tracker.Default().Opened(); guarded != 0 || off != 1 || Stats().TotalConnections != 0 || len(Stats().Environment) != 1 {
		t.Errorf("%d guarded, %d off, %+v", guarded, off, Stats())
	}
}

// The same program under observe: a leak is found and stays. It is told by the
// program's own logger.
func TestEnvironmentObserve(t *testing.T) {
	child, out := withEnvironment(t, "observe,leak_after=2ms,check_interval=1ms,nonsense")
	if !child {
		for _, want := range []string{
			`level=INFO msg="setting changed" its=own component=leakguard pool=app.db-1 reason="environment variable LEAKGUARD: observe,leak_after=2ms,check_interval=1ms"`,
			`level=ERROR msg="setting ignored" its=own component=leakguard pool=app.db-1 reason="\"nonsense\" of the environment variable LEAKGUARD is ignored: `,
		} {
			if strings.Count(out, want) != 1 {
				t.Errorf("want once %s in\n%s", want, out)
			}
		}
		return
	}
	tr := tracker.New(tracker.Options{})
	found := make(chan tracker.Leak, 1)
	tr.OnLeak(func(l tracker.Leak) { found <- l })
	c, err := NewConnector(Config{DSN: filepath.Join(t.TempDir(), "app.db"), Tracker: tr, Logger: slog.New(slog.NewTextHandler(os.Stdout, nil)).With("its", "own")})
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(c)
	rows, err := db.QueryContext(context.Background(), "SELECT 1 UNION SELECT 2")
	if err != nil {
		t.Fatal(err)
	}
	if l := <-found; l.Kind != tracker.KindRows || l.Reason != tracker.ReasonLeakAfter || l.Limit != 2*time.Millisecond {
		t.Errorf("%v", l)
	}
	n := 0
	for rows.Next() {
		n++
	}
	if err := rows.Err(); err != nil || n != 2 || tr.Stats().Reaped != 0 {
		t.Errorf("%d rows, %v, %+v", n, err, tr.Stats())
	}
	rows.Close()
	db.Close()
}
