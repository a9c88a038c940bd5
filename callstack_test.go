package leakguard

import (
	"database/sql"
	"fmt"
	"io"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
)

// Call stacks below SQLite: a Go function that SQL calls stands on C's stack,
// where no walk along frame pointers leads. See internal/callstack.

func frameTexts(pcs []uintptr) []string {
	var out []string
	for frames := runtime.CallersFrames(pcs); len(pcs) > 0; {
		f, more := frames.Next()
		out = append(out, fmt.Sprintf("%s %s:%d", f.Function, f.File, f.Line))
		if !more {
			break
		}
	}
	return out
}

// below returns a driver with the SQL function capture(n), which records its
// stack below n calls and compares it with what runtime.Callers says, and
// query(n), which opens and closes rows on another pool there.
func below(t *testing.T, other *sql.DB) *sqlite3.SQLiteDriver {
	var deep func(n int, f func())
	deep = func(n int, f func()) {
		if n > 0 {
			deep(n-1, f)
			return
		}
		f()
	}
	return funcs(map[string]any{
		"capture": func(n int64) int64 {
			deep(int(n), func() {
				var pcs [1024]uintptr
				var s *callstack.Stack
				var m int
				s, m = callstack.Capture(s), runtime.Callers(1, pcs[:])
				got, want := frameTexts(s.PCs()), frameTexts(pcs[:m])
				if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
					t.Errorf("found\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
				}
				if len(got) < min(int(n), callstack.MaxDepth-2) {
					t.Errorf("%d frames below %d calls", len(got), n)
				}
				if s.Partial() == (len(got) == len(want)) {
					t.Errorf("%d frames of %d, partial: %v", len(got), len(want), s.Partial())
				}
			})
			return n
		},
		"query": func(n int64) (answer int64, err error) {
			deep(int(n), func() { err = other.QueryRow("SELECT sum(capture(i)) FROM " + three).Scan(&answer) })
			return answer, err
		},
	})
}

func TestStackBelowSQL(t *testing.T) {
	if err := pprof.StartCPUProfile(io.Discard); err == nil {
		defer pprof.StopCPUProfile() // its signals arrive in C as well
	}
	inner := open(t, Config{SQLite: below(t, nil)})
	outer := open(t, Config{SQLite: below(t, inner.DB)})
	query := func() {
		for _, n := range []int{0, 1, 7, 20, 40, 200} {
			var sum int64
			if err := outer.QueryRow("SELECT capture(?) + query(?)", n, n).Scan(&sum); err != nil {
				t.Fatal(err)
			}
		}
	}
	query()
	func() { query() }() // the same inside, another caller
	done := make(chan struct{})
	go func() { defer close(done); query() }()
	<-done
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
		query()
	}
}

// A leak below SQL is named by the line in the Go function that SQL called.
func TestSiteBelowSQL(t *testing.T) {
	bubble(t, func(t *testing.T) {
		inner := open(t, Config{Policy: leakAfter(time.Minute)})
		run(t, inner, createT, "INSERT INTO t VALUES(1)")
		var rows *sql.Rows
		outer := open(t, Config{SQLite: funcs(map[string]any{"forget": func() (n int64, err error) {
			rows, err = inner.Query("SELECT a FROM t") // here
			return 1, err
		}})})
		run(t, outer, "SELECT forget()")
		sleep(5 * time.Minute)
		rows.Close()
		inner.expect(t, leakEvents, "suspect rows leak_after", "reaped rows leak_after")
		site := inner.events(leakEvents...)[0].Leak.Site()
		if !strings.HasSuffix(site.Function, "TestSiteBelowSQL.func1.1") || !strings.HasSuffix(site.File, "callstack_test.go") {
			t.Errorf("opened at %v in %s", site, site.Function)
		}
	})
}
