package tracker

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// here returns the line it is called on, as a Frame spells it.
func here() string {
	_, file, line, _ := runtime.Caller(1)
	return fmt.Sprintf("tracker/%s:%d", filepath.Base(file), line)
}

// holder is a connection whose holder's stack is read back.
type holder struct{ *Conn }

func newHolder(t testing.TB, noStacks bool) holder {
	p := newPool(t, New(Options{}), PoolConfig{Mode: Basic, NoStacks: noStacks, Logger: quiet})
	c := p.Open(still{}, false, "")
	t.Cleanup(c.Close)
	return holder{c}
}

func (h holder) stack() Stack { return h.Pool().Records()[0].Stack }

func inlined(h holder) string { h.CheckOut(""); return here() }

//go:noinline
func notInlined(h holder) string { h.CheckOut(""); return here() }

func generic[T any](h holder, _ T) string { h.CheckOut(""); return here() }

type method struct{ h holder }

func (m method) value() string    { m.h.CheckOut(""); return here() }
func (m *method) pointer() string { m.h.CheckOut(""); return here() }

func TestSiteOfRecordedStack(t *testing.T) {
	h := newHolder(t, false)
	for _, c := range []struct {
		name, function string
		open           func() string
	}{
		{"closure", "tracker.TestSiteOfRecordedStack.func", func() string { h.CheckOut(""); return here() }},
		{"inlined", "tracker.inlined", func() string { return inlined(h) }},
		{"not inlined", "tracker.notInlined", func() string { return notInlined(h) }},
		{"generic", "tracker.generic[...]", func() string { return generic(h, 1) }},
		{"generic of a struct", "tracker.generic[...]", func() string { return generic(h, struct{ x string }{}) }},
		{"method", "tracker.method.value", func() string { return method{h}.value() }},
		{"method of a pointer", "tracker.(*method).pointer", func() string { return (&method{h}).pointer() }},
		{"method value", "tracker.method.value", func() string { f := method{h}.value; return f() }},
		{"interface", "tracker.(*method).pointer", func() string {
			var i interface{ pointer() string } = &method{h}
			return i.pointer()
		}},
		{"deferred", "tracker.TestSiteOfRecordedStack.func", func() (at string) {
			defer func() { h.CheckOut(""); at = here() }()
			return ""
		}},
		{"panicking", "tracker.TestSiteOfRecordedStack.func", func() (at string) {
			defer func() { recover() }()
			defer func() { h.CheckOut(""); at = here() }()
			panic("no")
		}},
		{"goroutine", "tracker.TestSiteOfRecordedStack.func", func() string {
			at := make(chan string)
			go func() { h.CheckOut(""); at <- here() }()
			return <-at
		}},
		{"called by a library", "tracker.TestSiteOfRecordedStack.func", func() (at string) {
			slices.SortFunc([]int{2, 1}, func(a, b int) int { h.CheckOut(""); at = here(); return a - b })
			return at
		}},
	} {
		at := c.open()
		site := h.stack().Site()
		if site.String() != at || !strings.Contains(site.Function, "/"+c.function) {
			t.Errorf("%s: %s in %s, want %s in %s", c.name, site, site.Function, at, c.function)
		}
		h.CheckIn()
	}
}

// Every way to open something records who did.
func TestSiteOfEveryResource(t *testing.T) {
	h := newHolder(t, false)
	var rows, stmt Resource
	h.BeginTx("BEGIN", "")
	tx := here()
	h.OpenRows(&rows, "SELECT 1", "")
	query := here()
	h.OpenStatement(&stmt, "SELECT 1", "")
	prepare := here()
	leased := h.Pool().Open(still{}, true, "")
	lease := here()
	defer leased.Close()
	leak := func(c *Conn, r *Resource) Leak {
		c.mu.Lock()
		defer c.mu.Unlock()
		return *c.leakLocked(r, ReasonLeakAfter, 0, 0, 0)
	}
	for _, c := range []struct {
		name string
		got  Leak
		want string
	}{
		{"tx", leak(h.Conn, &h.tx), tx}, {"rows", leak(h.Conn, &rows), query},
		{"statement", leak(h.Conn, &stmt), prepare}, {"lease", leak(leased, &leased.lease), lease},
	} {
		line := func(s string) (n int) {
			fmt.Sscan(s[strings.LastIndexByte(s, ':')+1:], &n)
			return n
		}
		if got := c.got.Site().String(); line(got) != line(c.want)-1 {
			t.Errorf("%s: %s, want the line before %s", c.name, got, c.want)
		}
	}
	// A transaction's stack stands for a lease that has none, not for one that
	// has its own.
	if got := h.stack(); len(got) != 0 {
		t.Errorf("an idle connection shows %v", got.Site())
	}
}

// A pool without stacks takes none over from the one beside it.
func TestNoStacksBesideStacks(t *testing.T) {
	tr := New(Options{})
	for range 3 {
		for _, none := range []bool{false, true} {
			p := newPool(t, tr, PoolConfig{Mode: Basic, NoStacks: none, Logger: quiet})
			c := p.Open(still{}, true, "")
			if n := len(p.Records()[0].Stack); (n == 0) != none {
				t.Errorf("without stacks %v: %d calls", none, n)
			}
			c.Close()
			p.Close()
		}
	}
}

func TestNoStacks(t *testing.T) {
	h := newHolder(t, true)
	h.CheckOut("")
	if s := h.stack(); len(s) != 0 || s.Site() != (Frame{}) || s.Site().String() != "unknown" || s.String() != "" || s.Frames() != nil {
		t.Errorf("recorded %v", s)
	}
	if d := h.Pool().Stats().ActiveConnectionDetails[0]; d.OpenedAt != "" {
		t.Errorf("opened at %q", d.OpenedAt)
	}
}

// A deep stack keeps its innermost frames.
func TestDeepStack(t *testing.T) {
	h := newHolder(t, false)
	at := ""
	var deep func(n int)
	deep = func(n int) {
		if n > 0 {
			deep(n - 1)
			return
		}
		h.CheckOut("")
		at = here()
	}
	deep(500)
	s := h.stack()
	line := func(s string) (n int) {
		fmt.Sscan(s[strings.LastIndexByte(s, ':')+1:], &n)
		return n
	}
	if len(s) > 128 || len(s) < 16 || line(s.Site().String()) != line(at)-1 {
		t.Errorf("%d frames, at %v, want %s", len(s), s.Site(), at)
	}
}

func pc(f any) uintptr { return reflect.ValueOf(f).Pointer() + 1 }

// Between the program and the record stand the guard, database/sql, and the
// runtime.
func TestSiteSkips(t *testing.T) {
	guard, lib, rt := pc((*Conn).OpenRows), pc((*sql.DB).Query), pc(runtime.Goexit)
	user, other := pc(TestSiteSkips), pc(newHolder)
	for _, c := range []struct {
		name string
		s    Stack
		want string
	}{
		{"direct", Stack{user}, "TestSiteSkips"},
		{"guard", Stack{guard, user, other}, "TestSiteSkips"},
		{"guard and database/sql", Stack{guard, lib, lib, other, user}, "newHolder"},
		{"callback of database/sql", Stack{guard, lib, user, lib, other}, "TestSiteSkips"},
		{"runtime", Stack{guard, lib, rt, user}, "TestSiteSkips"},
		{"nobody", Stack{guard, lib, rt}, "OpenRows"}, // better than nothing
		{"nothing", nil, ""},
	} {
		if got := c.s.Site().Function; !strings.HasSuffix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	s := Stack{guard, lib, user, lib, rt}
	var names []string
	for _, f := range s.Frames() {
		names = append(names, f.Function[strings.LastIndexByte(f.Function, '.')+1:])
	}
	if got := strings.Join(names, " "); got != "OpenRows Query TestSiteSkips Query Goexit" {
		t.Errorf("frames %s", got)
	}
	// The text begins with the program's own frame and then leaves nothing out.
	lines := strings.Split(s.String(), "\n")
	if len(lines) != 7 || !strings.HasSuffix(lines[0], ".TestSiteSkips") || !strings.HasPrefix(lines[1], "\t/") ||
		!strings.Contains(lines[1], "site_test.go:") || lines[2] != "database/sql.(*DB).Query" || lines[4] != "runtime.Goexit" || lines[6] != "" {
		t.Errorf("%q", lines)
	}
}

func TestInternalFrame(t *testing.T) {
	module := "github.com/sqlite-leakguard/sqlite-leakguard"
	if modulePath != module {
		t.Fatalf("modulePath is %s", modulePath)
	}
	for _, c := range []struct {
		function, file string
		want           bool
	}{
		{"runtime.goexit", "/go/src/runtime/asm_amd64.s", true},
		{"runtime.main", "/go/src/runtime/proc.go", true},
		{"database/sql.(*DB).QueryContext", "/go/src/database/sql/sql.go", true},
		{"database/sql.withLock", "/go/src/database/sql/sql.go", true},
		{"database/sql/driver.IsValue", "/go/src/database/sql/driver/types.go", false},
		{module + ".(*conn).QueryContext", "/m/conn.go", true},
		{module + ".InTx.func1", "/m/nested.go", true},
		{module + "/tracker.(*Conn).OpenRows", "/m/tracker/conn.go", true},
		{module + ".TestX", "/m/driver_test.go", false}, // a user of it
		{module + "/examples/quickstart.run", "/m/examples/quickstart/main.go", false},
		{module + "-fork.Open", "/f/conn.go", false},
		{module + "/trackers.Open", "/f/conn.go", false},
		{"runtime/pprof.Do", "/go/src/runtime/pprof/runtime.go", false},
		{"runtimes.Go", "/r/r.go", false},
		{"main.main", "/app/main.go", false},
		{"example.com/billing.(*Store).Open", "/app/billing/store.go", false},
		{"github.com/jmoiron/sqlx.(*DB).Queryx", "/mod/sqlx.go", true},
	} {
		if got := internalFrame(Frame{Function: c.function, File: c.file}); got != c.want {
			t.Errorf("%s: %v", c.function, got)
		}
	}
}

func TestFrameString(t *testing.T) {
	for _, c := range []struct {
		f    Frame
		want string
	}{
		{Frame{File: "/home/a/billing/invoice.go", Line: 88}, "billing/invoice.go:88"},
		{Frame{File: "billing/invoice.go", Line: 1}, "billing/invoice.go:1"},
		{Frame{File: "invoice.go", Line: 7}, "invoice.go:7"},
		{Frame{File: "/invoice.go", Line: 7}, "invoice.go:7"},
		{Frame{File: "C:/src/billing/invoice.go", Line: 9}, "billing/invoice.go:9"},
		{Frame{File: "example.com/app@v1.2.3/invoice.go", Line: 9}, "app@v1.2.3/invoice.go:9"},
		{Frame{File: "_cgo_gotypes.go", Line: 2}, "_cgo_gotypes.go:2"},
		{Frame{}, "unknown"},
		{Frame{Function: "main.main", Line: 3}, "unknown"},
	} {
		if got := c.f.String(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.f, got, c.want)
		}
		if text, err := json.Marshal(c.f); err != nil || string(text) != `"`+c.want+`"` {
			t.Errorf("%+v: %s, %v", c.f, text, err)
		}
	}
}
