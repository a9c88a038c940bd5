package debughttp_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// keys returns the names of a JSON object, sorted.
func keys(t *testing.T, object any) string {
	t.Helper()
	m, ok := object.(map[string]any)
	if !ok {
		t.Fatalf("%v is no object", object)
	}
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// The names are part of the interface.
func TestJSON(t *testing.T) {
	inBubble(t, func(s *scene) {
		c := s.open(s.pool("shop.db"), true, "")
		rows := forgetRows(c, "SELECT 1", "on purpose")
		c.BeginTx("BEGIN", "")
		pass(6 * time.Minute)
		closeRows(c, rows)
		forgetRows(c, "SELECT 2", "on purpose")
		var d map[string]any
		if err := json.Unmarshal([]byte(body(t, debughttp.Handler(s.Tracker), "/?format=json")), &d); err != nil {
			t.Fatal(err)
		}
		first := func(name string) map[string]any {
			t.Helper()
			list, ok := d[name].([]any)
			if !ok || len(list) == 0 {
				t.Fatalf("%s is %v", name, d[name])
			}
			return list[0].(map[string]any)
		}
		for _, c := range []struct {
			what      string
			got, want string
		}{
			{"document", keys(t, d), "blamed held history leaks memory_history pools resting stats suspects time verdict"},
			{"held", keys(t, first("held")), "age age_at_least busy connection_id function idle kind opened_at pool query resource site stack"},
			{"suspect", keys(t, first("suspects")), "age connection_id cure function id idle kind last_site level limit lock next opened_at pool query reason resource site stack"},
			{"pools", keys(t, first("pools")), "idle leased lost mode places pool resting settings waiting"},
			{"history", keys(t, first("history")), "connection_id pool time type"},
			{"leaks", keys(t, first("leaks")), "connection_id leak pool reason time type"},
			{"memory_history", keys(t, first("memory_history")), "connection_bytes leased open process_rss_bytes sqlite_bytes system_percent time"},
			{"frame", keys(t, first("suspects")["stack"].([]any)[0]), "file function line"},
		} {
			if c.got != c.want {
				t.Errorf("%s has %s\nwant %s", c.what, c.got, c.want)
			}
		}
		suspect := first("suspects")
		if d["verdict"] != "1 suspect" || suspect["kind"] != "transaction" || suspect["age"] != 360.0 || suspect["limit"] != 300.0 {
			t.Errorf("%v", suspect)
		}
		stats, _ := json.Marshal(d["stats"])
		var back tracker.Stats
		if err := json.Unmarshal(stats, &back); err != nil || back.LeakedDetected != 2 || back.ActiveConnectionDetails[0].Query != "SELECT 2" {
			t.Errorf("stats %s: %v", stats, err)
		}
	})
}

// Lists without entries are lists.
func TestJSONWithoutAnything(t *testing.T) {
	text := body(t, debughttp.Handler(tracker.New(tracker.Options{})), "/?format=json")
	wants(t, text, `"suspects": []`, `"resting": []`, `"pools": []`, `"held": []`, `"history": []`, `"leaks": []`, `"blamed": []`, `"memory_history": []`, `"verdict": "nothing forgotten"`)
}

func TestVar(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p, err := tr.NewPool(tracker.PoolConfig{SQL: tracker.SQLFull, Name: badPool, Mode: tracker.Basic, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	defer p.Open(nil, true, "").Close()
	var s tracker.Stats
	if err := json.Unmarshal([]byte(debughttp.Var(tr).String()), &s); err != nil || s.TotalConnections != 1 || s.ActiveConnectionDetails[0].Pool != badPool {
		t.Errorf("%+v, %v", s, err)
	}
}

// openThrough is a helper of the program: whose lease it is says who called it.
func openThrough(p *tracker.Pool) *tracker.Conn { return p.Open(nil, true, "") }

func TestJSONThroughHelper(t *testing.T) {
	tracker.SkipFunctions("github.com/sqlite-leakguard/sqlite-leakguard/debughttp_test.openThrough")
	tr := tracker.New(tracker.Options{})
	p, err := tr.NewPool(tracker.PoolConfig{Mode: tracker.Basic, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	defer openThrough(p).Close()
	text := body(t, debughttp.Handler(tr), "/?format=json")
	wants(t, text, `"site": "debughttp/json_test.go:`, `"function": "github.com/sqlite-leakguard/sqlite-leakguard/debughttp_test.TestJSONThroughHelper"`,
		`"through": "debughttp/json_test.go:`)
}
