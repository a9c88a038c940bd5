package tracker

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// The names are those of the system whose statistics these are; thread_id has
// no counterpart in Go, and opened_at stands for it.
func TestStatsJSONNames(t *testing.T) {
	text, err := json.Marshal(Stats{Missing: []string{"x"}, ActiveConnectionDetails: []ConnectionDetail{{TransactionAge: 1, Exempt: "x", Kept: "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	names := func(v any) []string {
		var out []string
		for name := range v.(map[string]any) {
			out = append(out, name)
		}
		slices.Sort(out)
		return out
	}
	details := all["active_connection_details"].([]any)[0]
	for _, c := range []struct {
		where  string
		got    []string
		origin []string
		more   []string
	}{
		{"stats", names(all), []string{
			"total_connections", "active_connections", "pool_size", "max_connections", "lost", "resting", "verdict", "created", "reused", "expired",
			"leaked_detected", "force_closed", "aggressive_cleanups", "leak_detection", "memory_monitoring", "active_connection_details",
		}, []string{
			"recycled", "refreshed", "proven", "recovered", "reaped", "events_dropped", "callback_panics", "blocked", "lock_wait_count", "lock_wait_seconds", "wal_bytes",
			"open_transactions", "open_rows", "open_statements", "missing",
		}},
		{"leak_detection", names(all["leak_detection"]), []string{
			"recent_leak_alerts", "connection_history_size", "potentially_leaked_count",
		}, nil},
		{"memory_monitoring", names(all["memory_monitoring"]), []string{
			"average_system_memory_percent", "average_process_memory_mb", "pressure_events_count", "memory_pressure",
		}, nil},
		{"active_connection_details", names(details), []string{
			"connection_id", "age", "idle_time", "transaction_level", "access_count", "potentially_leaked",
		}, []string{
			"opened_at", "query", "state", "pool", "transaction_age", "open_rows", "open_statements", "exempt", "kept",
			"memory_bytes", "memory_peak_bytes",
		}},
	} {
		want := slices.Concat(c.origin, c.more)
		slices.Sort(want)
		for _, name := range c.origin {
			if !slices.Contains(c.got, name) {
				t.Errorf("%s: %s is missing", c.where, name)
			}
		}
		if c.where != "memory_monitoring" && !slices.Equal(c.got, want) { // the memory monitor will add to its own
			t.Errorf("%s: %q, want %q", c.where, c.got, want)
		}
	}
}

func TestStatsJSON(t *testing.T) {
	const empty = `{"total_connections":0,"active_connections":0,"pool_size":0,"max_connections":0,"lost":0,"resting":0,"verdict":"good","created":0,"reused":0,` +
		`"expired":0,"recycled":0,"refreshed":0,"leaked_detected":0,"proven":0,"recovered":0,"reaped":0,"force_closed":0,"aggressive_cleanups":0,` +
		`"events_dropped":0,"callback_panics":0,"blocked":0,"lock_wait_count":0,"lock_wait_seconds":0,"wal_bytes":0,"open_transactions":0,"open_rows":0,"open_statements":0,` +
		`"leak_detection":{"recent_leak_alerts":0,"connection_history_size":0,"potentially_leaked_count":0},` +
		`"memory_monitoring":{"average_system_memory_percent":0,"average_process_memory_mb":0,"pressure_events_count":0,"memory_pressure":false},` +
		`"active_connection_details":[]}`
	compareJSON(t, New(Options{}).Stats(), empty)
	inBubble(t, func(l *lab) {
		l.sleep(sec)
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter = 5 * mins }))
		p.Lacks("sqlite3 handle")
		idle, f := l.open(p, true), l.open(p, false)
		idle.in()
		l.sleep(10 * sec)
		f.out("nightly import")
		f.begin("BEGIN", "")
		f.SetLevel(2)
		f.query("SELECT\n  "+strings.Repeat("x", 300), "")
		f.prepare("SELECT 2")
		f.Keep("attached databases")
		f.Recycled(ReasonMaxLifetime)
		f.ForceClosed()
		l.until(sec + 8*mins)
		s := p.Stats()
		for i := range s.LostPlaces {
			s.LostPlaces[i].Site = lineNumber.ReplaceAllString(s.LostPlaces[i].Site, "_test.go:LINE")
		}
		for i := range s.Findings {
			s.Findings[i] = lineNumber.ReplaceAllString(s.Findings[i], "_test.go:LINE")
		}
		for i := range s.ActiveConnectionDetails { // site_test.go says where
			d := &s.ActiveConnectionDetails[i]
			d.OpenedAt, _, _ = strings.Cut(d.OpenedAt, ":")
			d.LastActivityAt, _, _ = strings.Cut(d.LastActivityAt, ":")
		}
		compareJSON(t, s, `{"total_connections":2,"active_connections":1,"pool_size":1,"max_connections":0,"lost":1,`+
			`"lost_places":[{"pool":"db","connection_id":"db#2","since":"2000-01-01T00:00:11Z","undone":"connection closed","closed":true,"site":"tracker/fake_test.go:LINE"}],`+
			`"resting":0,"verdict":"bad","findings":["1 place of pool db is lost: what their leases held was undone, opened at tracker/fake_test.go:LINE; they come back when the holders let go"],"created":2,"reused":0,`+
			`"expired":1,"recycled":1,"refreshed":0,"leaked_detected":2,"proven":0,"recovered":0,"reaped":0,"force_closed":1,"aggressive_cleanups":0,`+
			`"events_dropped":0,"callback_panics":0,"blocked":0,"lock_wait_count":0,"lock_wait_seconds":0,"wal_bytes":0,"open_transactions":1,"open_rows":1,"open_statements":1,`+
			`"leak_detection":{"recent_leak_alerts":2,"connection_history_size":6,"potentially_leaked_count":1},`+
			`"memory_monitoring":{"average_system_memory_percent":0,"average_process_memory_mb":0,"pressure_events_count":0,"memory_pressure":false},`+
			`"missing":["sqlite3 handle"],"active_connection_details":[`+
			`{"connection_id":"db#2","pool":"db","state":"leased","age":480,"idle_time":420,"transaction_level":2,"transaction_age":470,"access_count":1,`+
			`"open_rows":1,"open_statements":1,"potentially_leaked":true,"opened_at":"tracker/fake_test.go","query":"SELECT `+strings.Repeat("x", 190)+`…",`+
			`"exempt":"nightly import","kept":"attached databases","memory_bytes":0,"memory_peak_bytes":0,"lease_age":470,"lease_age_at_least":true,`+
			`"last_activity_at":"tracker/fake_test.go","reaped":true,"lost":true,"lost_for":470},`+
			`{"connection_id":"db#1","pool":"db","state":"idle","age":480,"idle_time":420,"transaction_level":0,"access_count":1,`+
			`"open_rows":0,"open_statements":0,"potentially_leaked":false,"opened_at":"","query":"","memory_bytes":0,"memory_peak_bytes":0,"last_activity_at":"tracker/fake_test.go"}]}`)
	})
}

// compareJSON leaves out what the memory monitor adds to its own part.
func compareJSON(t *testing.T, s Stats, want string) {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cut := func(text string) string {
		before, rest, ok := strings.Cut(text, `"memory_monitoring":{`)
		if _, after, found := strings.Cut(rest, "}"); ok && found {
			return before + after
		}
		return text
	}
	if got := cut(string(text)); got != cut(want) {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
}

// Sub takes every counter, and nothing else.
func TestStatsSub(t *testing.T) {
	fill := func(base int64) (s Stats) {
		n := base
		var visit func(v reflect.Value)
		visit = func(v reflect.Value) {
			for i := range v.NumField() {
				n += base
				switch f := v.Field(i); f.Kind() {
				case reflect.Struct:
					visit(f)
				case reflect.Uint64:
					f.SetUint(uint64(n))
				case reflect.Int, reflect.Int64:
					f.SetInt(n)
				case reflect.Float64:
					f.SetFloat(float64(n))
				}
			}
		}
		visit(reflect.ValueOf(&s).Elem())
		return s
	}
	s, old := fill(10), fill(3)
	d := s.Sub(old)
	var compare func(path string, d, s, old reflect.Value)
	compare = func(path string, d, s, old reflect.Value) {
		for i := range d.NumField() {
			name := path + d.Type().Field(i).Name
			d, s, old := d.Field(i), s.Field(i), old.Field(i)
			switch d.Kind() {
			case reflect.Struct:
				compare(name+".", d, s, old)
			case reflect.Uint64: // a counter
				if name == "MemoryMonitoring.SQLiteMemoryBytes" { // a level
					if !d.Equal(s) {
						t.Errorf("%s: %v, want %v", name, d, s)
					}
					continue
				}
				if d.Uint() != s.Uint()-old.Uint() {
					t.Errorf("%s: %d, want %d - %d", name, d.Uint(), s.Uint(), old.Uint())
				}
			case reflect.Slice:
			default:
				if name == "LockWaitSeconds" { // a counter, too
					if d.Float() != s.Float()-old.Float() {
						t.Errorf("%s: %v, want %v - %v", name, d, s, old)
					}
					continue
				}
				if !d.Equal(s) {
					t.Errorf("%s: %v, want %v", name, d, s)
				}
			}
		}
	}
	compare("", reflect.ValueOf(d), reflect.ValueOf(s), reflect.ValueOf(old))
	if s.Created != fill(10).Created {
		t.Error("Sub changes what it is called on")
	}
}

// Leased connections come first, and of these the longest leased; of the idle
// ones the oldest.
func TestStatsDetailsSorted(t *testing.T) {
	inBubble(t, func(l *lab) {
		a, b := l.pool(Basic, DefaultPolicy()), l.pool(Basic, DefaultPolicy())
		var fakes []*fake
		for i := range 6 {
			l.sleep(sec)
			fakes = append(fakes, l.open([]*Pool{a, b}[i%2], false))
		}
		for _, i := range []int{4, 1, 3} {
			l.sleep(sec)
			fakes[i].out("")
			fakes[i].begin("BEGIN", "") // what a lease opens says how old it is
		}
		fakes[1].enter()
		l.open(a, false).Close() // and the order does not hang on where they are kept
		fakes[0].Close()
		ids := func(s Stats) (ids []string) {
			for _, d := range s.ActiveConnectionDetails {
				ids = append(ids, d.ConnectionID+" "+d.State)
			}
			return ids
		}
		if got := ids(l.Stats()); !slices.Equal(got, []string{"db#5 leased", "db-1#2 busy", "db-1#4 leased", "db#3 idle", "db-1#6 idle"}) {
			t.Errorf("%q", got)
		}
		if got := ids(b.Stats()); !slices.Equal(got, []string{"db-1#2 busy", "db-1#4 leased", "db-1#6 idle"}) {
			t.Errorf("%q", got)
		}
	})
}

// The counts of a pool are its own, the tracker's are all of them, also of
// pools that are gone.
func TestStatsPerPool(t *testing.T) {
	inBubble(t, func(l *lab) {
		policy := limits(func(p *Policy) { p.LeakAfter = mins })
		use := func(p *Pool) {
			f := l.open(p, true)
			for range 3 {
				f.in()
				f.out("")
			}
			f.query("SELECT 1", "")
			l.sleep(3 * mins) // suspect and reaped
			f.in()
			f.out("")
			f.begin("BEGIN", "")
			l.sleep(100 * sec) // suspect
			f.commit()         // recovered
			r := f.query("SELECT 2", "")
			f.Proven(r, true)
			f.finish(r)
			f.Recycled(ReasonMaxIdle)
			f.Recycled(ReasonMaxAccess)
			f.in()
			f.Close()
		}
		counters := func(s Stats) string {
			return fmt.Sprint("created ", s.Created, " reused ", s.Reused, " leaked ", s.LeakedDetected, " proven ", s.Proven, " recovered ", s.Recovered,
				" reaped ", s.Reaped, " recycled ", s.Recycled, " expired ", s.Expired, " force ", s.ForceClosed)
		}
		a, b := l.pool(Enforce, policy), l.pool(Enforce, policy)
		use(a)
		if got := counters(a.Stats()); got != "created 1 reused 4 leaked 3 proven 1 recovered 1 reaped 2 recycled 2 expired 1 force 1" {
			t.Error(got)
		}
		if got := counters(b.Stats()); got != "created 0 reused 0 leaked 0 proven 0 recovered 0 reaped 0 recycled 0 expired 0 force 0" {
			t.Error(got)
		}
		use(b)
		use(b)
		const all = "created 3 reused 12 leaked 9 proven 3 recovered 3 reaped 6 recycled 6 expired 3 force 3"
		if got := counters(l.Stats()); got != all {
			t.Error(got)
		}
		history := b.Stats().LeakDetection
		if h := a.Stats().LeakDetection; h.ConnectionHistorySize == 0 || 2*h.ConnectionHistorySize != history.ConnectionHistorySize ||
			h.RecentLeakAlerts != 3 || history.RecentLeakAlerts != 6 || len(l.History()) != 3*h.ConnectionHistorySize {
			t.Errorf("%+v and %+v of %d", h, history, len(l.History()))
		}
		b.Close()
		if got := counters(l.Stats()); got != all {
			t.Errorf("after Close of one pool: %s", got)
		}
		a.Close()
		a.Close()
		if got := counters(l.Stats()); got != all {
			t.Errorf("after Close of all: %s", got)
		}
		use(l.pool(Enforce, policy))
		if got := counters(l.Stats()); !strings.HasPrefix(got, "created 4 reused 16 ") {
			t.Errorf("after another pool: %s", got)
		}
	})
}

// The history is bounded, the counters are not: an alert that is forgotten is
// still a leak that was found.
func TestRecentLeakAlertsForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Options{History: 3})
		p := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet})
		c := p.Open(still{}, true, "")
		for range 5 {
			var r Resource
			c.OpenRows(&r, "SELECT 1", "")
			c.Proven(&r, true)
			c.CloseResource(&r)
		}
		if s := p.Stats(); s.LeakedDetected != 5 || s.LeakDetection.RecentLeakAlerts >= 3 || s.LeakDetection.ConnectionHistorySize != 3 {
			t.Errorf("%+v", s)
		}
		c.Close()
	})
}

// Snapshots taken while everything happens are consistent in themselves, and no
// counter ever goes back.
func TestStatsConsistent(t *testing.T) {
	tr := New(Options{})
	policy := limits(func(p *Policy) { p.LeakAfter, p.TxTimeout = time.Millisecond, 2*time.Millisecond })
	long := newPool(t, tr, PoolConfig{Name: "long", Policy: policy, Logger: quiet})
	var wg sync.WaitGroup
	done := make(chan bool)
	for i := range 4 {
		wg.Go(func() {
			for j := range 400 {
				p := long
				if i%2 == 0 { // pools come and go as well
					p = newPool(t, tr, PoolConfig{Name: "short", Policy: policy, Logger: quiet})
				}
				c := owned{p.Open(still{}, true, "")}
				var r Resource
				c.Word().Add(gate.Flags + 1)
				c.OpenRows(&r, "SELECT 1", "")
				if j%3 == 0 {
					c.Proven(&r, true)
				}
				c.CloseResource(&r)
				c.BeginTx("BEGIN", "")
				for range j % 50 {
					c.CheckIn()
					c.CheckOut("")
				}
				c.Recycled(ReasonMaxIdle)
				c.EndTx()
				c.Close()
				if p != long {
					p.Close()
				}
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	var last, lastLong Stats
	snapshots := 0
	for running := true; running; snapshots++ {
		select {
		case <-done:
			running = false
		default:
		}
		s := tr.Stats()
		rows := 0
		for _, d := range s.ActiveConnectionDetails {
			rows += d.OpenRows
		}
		if s.TotalConnections != s.ActiveConnections+s.PoolSize || s.TotalConnections != len(s.ActiveConnectionDetails) || rows != s.OpenRows {
			t.Errorf("%+v", s)
		}
		if s.Reaped+s.Recovered > s.LeakedDetected || s.Proven > s.LeakedDetected || s.Expired > s.Recycled || uint64(s.TotalConnections) > s.Created {
			t.Errorf("%+v", s)
		}
		notBack(t, last, s)
		l := long.Stats()
		notBack(t, lastLong, l)
		last, lastLong = s, l
		if t.Failed() {
			break
		}
	}
	<-done
	s := tr.Stats()
	if s.Created != 1600 || s.Expired != 1600 || s.Proven != 4*134 || s.TotalConnections != 0 || s.Reused != 4*400/50*(49*50/2) {
		t.Errorf("after %d snapshots: %+v", snapshots, s)
	}
	long.Close()
}

func notBack(t *testing.T, old, s Stats) {
	t.Helper()
	a, b := reflect.ValueOf(old), reflect.ValueOf(s)
	for i := range a.NumField() {
		if a.Field(i).Kind() == reflect.Uint64 && a.Field(i).Uint() > b.Field(i).Uint() {
			t.Errorf("%s went back from %d to %d", a.Type().Field(i).Name, a.Field(i).Uint(), b.Field(i).Uint())
		}
	}
}

func TestRecordState(t *testing.T) {
	for _, c := range []struct {
		r    Record
		want string
	}{
		{Record{}, "idle"}, {Record{Leased: true}, "leased"}, {Record{Leased: true, Busy: true}, "busy"}, {Record{Busy: true}, "busy"},
	} {
		if got := c.r.State(); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}
