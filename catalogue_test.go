package leakguard

import (
	"context"
	"database/sql"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/testdata/catalogue/layer"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// The catalogue: ways to forget something, and programs that look alike and are
// right. Each pattern is a method of leaking, dropping or behaving, found by
// reflection; the line that must be named is marked in the source. Nobody keeps
// a list or a number.
//
//	// leak:rows                  these rows are forgotten here
//	// leak:transaction/in_pool   with this reason
//	// leak:rows x2               two of them at this line
//	// leak:rows for A,B          in a function that the patterns A and B call
//	// exempt:connection          reported as exempt, and left alone
//
// The limits are the defaults, and time passes in a synctest bubble: who waits
// five minutes waits for nothing.

const (
	// fewest is how many patterns of either kind there must be.
	fewest = 40

	layerPath = "github.com/sqlite-leakguard/sqlite-leakguard/testdata/catalogue/layer"
)

func init() { tracker.SkipPackages(layerPath) }

// program is what a pattern has at hand: a small shop's database.
type program struct {
	*guarded
	t testing.TB
	// ctx cannot be cancelled, or is when the case is over; a pattern that
	// names it is run with both.
	ctx context.Context
	// never is closed when the case is over: who waits for it waits for ever.
	never chan struct{}

	mu   sync.Mutex
	kept []any
	undo []func()
}

// keep holds on to something, as a field of some struct would.
func (p *program) keep(x any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = append(p.kept, x)
}

// finally has f called when the case is over and judged. A transaction that
// never ends keeps a goroutine of database/sql, and that the bubble, so each
// is rolled back here if its context does not end it.
func (p *program) finally(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.undo = append(p.undo, f)
}

// over lets everybody go who waits.
func (p *program) over() {
	settle := func() {
		if gate.InBubble() {
			synctest.Wait()
		}
	}
	close(p.never)
	settle() // one at a time uses a connection
	defer settle()
	p.mu.Lock()
	undo := p.undo
	p.undo = nil
	p.mu.Unlock()
	for _, f := range slices.Backward(undo) {
		f()
	}
}

// ok returns what a call returned that must not fail.
func ok[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

const (
	orders    = "SELECT id FROM orders"
	order7    = "SELECT id FROM orders WHERE id = 7"
	noOrder   = "SELECT id FROM orders WHERE id = -1"
	newOrder  = "INSERT INTO orders(customer) VALUES('new')"
	returning = newOrder + " RETURNING id"
)

// openProgram opens a database with sixty orders.
func openProgram(t testing.TB, ctx context.Context, cfg Config) *program {
	cfg.DSN, cfg.Tracker, cfg.Logger = fileDSN(t), tracker.New(tracker.Options{}), slog.New(slog.DiscardHandler)
	connector, err := NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	// Not by open: its spy would be the site of a connection opened on the way.
	pool := &layer.Connector{Connector: connector}
	g := &guarded{DB: sql.OpenDB(pool), connector: connector, dsn: cfg.DSN, recorder: record(t, cfg.Tracker)}
	p := &program{guarded: g, t: t, ctx: ctx, never: make(chan struct{})}
	t.Cleanup(func() {
		pool.GiveUp() // the places that nobody gives back
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	run(t, p, "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer TEXT)",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 60) INSERT INTO orders SELECT i, 'c' || i FROM n")
	t.Cleanup(p.over)
	return p
}

// pattern is one entry of the catalogue.
type pattern struct {
	name string
	run  func(*program)
	want []mark
	ctxs bool // it names its context
}

// mark is what a comment in the source expects.
type mark struct {
	kind, reason, place string // place is file.go:line
	exempt              bool
}

func (m mark) String() string {
	s := m.kind + " " + m.place
	if m.exempt {
		s += " (exempt)"
	}
	return s
}

var (
	markPattern  = regexp.MustCompile(`(leak|exempt):(\w+)(?:/(\w+))?(?: x(\d))?(?: for ([\w,]+))?`)
	marksPattern = regexp.MustCompile(`^//( ` + markPattern.String() + `)+$`)
)

// marks reads the comments of the catalogue's files: for each pattern what it
// expects, and whether it names a ctx.
func marks(t *testing.T) (want map[string][]mark, ctxs map[string]bool) {
	t.Helper()
	files := []string{"catalogue_leaks_test.go", "catalogue_fine_test.go"}
	more, err := filepath.Glob("testdata/catalogue/*/*.go")
	if err != nil || len(more) == 0 {
		t.Fatal("no packages of the catalogue", err)
	}
	want, ctxs = make(map[string][]mark), make(map[string]bool)
	for _, file := range append(files, more...) {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		owners := make(map[*ast.FuncDecl]string)
		for _, d := range f.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Recv != nil && len(d.Recv.List) == 1 {
				if recv, ok := d.Recv.List[0].Type.(*ast.Ident); ok {
					owner := recv.Name + "." + d.Name.Name
					owners[d] = owner
					ast.Inspect(d, func(n ast.Node) bool {
						if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "ctx" {
							ctxs[owner] = true
						}
						return true
					})
				}
			}
		}
		for _, group := range f.Comments {
			for _, c := range group.List {
				at := fset.Position(c.Slash)
				if !marksPattern.MatchString(c.Text) {
					if strings.Contains(c.Text, "leak:") || strings.Contains(c.Text, "exempt:") {
						t.Errorf("%s: a mark that is none: %s", at, c.Text)
					}
					continue
				}
				for _, m := range markPattern.FindAllStringSubmatch(c.Text, -1) {
					expected := mark{m[2], m[3], fmt.Sprintf("%s:%d", filepath.Base(file), at.Line), m[1] == "exempt"}
					var of []string
					for name := range strings.FieldsFuncSeq(m[5], func(r rune) bool { return r == ',' }) {
						of = append(of, "leaking."+name)
					}
					for d, name := range owners {
						if d.Pos() <= c.Pos() && c.Pos() < d.End() {
							of = append(of, name)
						}
					}
					if len(of) == 0 {
						t.Errorf("%s: a mark of no pattern", at)
					}
					times := 1
					fmt.Sscan(m[4], &times)
					for _, owner := range of {
						want[owner] = append(want[owner], slices.Repeat([]mark{expected}, times)...)
					}
				}
			}
		}
	}
	return want, ctxs
}

// patterns lists the methods of sets, which belong to the catalogue.
func patterns(t *testing.T, sets ...any) []pattern {
	t.Helper()
	want, ctxs := marks(t)
	var all []pattern
	for _, set := range sets {
		v := reflect.ValueOf(set)
		for i := range v.NumMethod() {
			name := v.Type().Method(i).Name
			owner := v.Type().Name() + "." + name
			run, ok := v.Method(i).Interface().(func(*program))
			if !ok {
				t.Errorf("%s is no pattern", owner)
				continue
			}
			all = append(all, pattern{name, run, want[owner], ctxs[owner]})
			delete(want, owner)
		}
		for owner := range want {
			if strings.HasPrefix(owner, v.Type().Name()+".") {
				t.Errorf("marks of %s, which is no pattern", owner)
			}
		}
	}
	return all
}

// each runs the patterns by name, those that name their context with one that
// cannot be cancelled and one that can.
func each(t *testing.T, all []pattern, f func(t *testing.T, ctx context.Context, e pattern)) {
	for _, e := range all {
		t.Run(e.name, func(t *testing.T) {
			if !e.ctxs {
				bubble(t, func(t *testing.T) { f(t, background, e) })
				return
			}
			t.Run("background", func(t *testing.T) {
				bubble(t, func(t *testing.T) { f(t, background, e) })
			})
			t.Run("cancellable", func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(background)
					defer cancel()
					f(t, ctx, e)
				})
			})
		})
	}
}

// found is a leak and what became of it.
type found struct {
	tracker.Leak
	reasons []string
	reaped  bool
}

func (f found) mark() mark {
	site := f.Site()
	return mark{f.Kind.String(), "", fmt.Sprintf("%s:%d", filepath.Base(site.File), site.Line), f.Exempt != ""}
}

// leaks returns the leaks that were told.
func (p *program) leaks() []*found {
	var all []*found
	for _, e := range p.events(leakEvents...) {
		i := slices.IndexFunc(all, func(f *found) bool { return f.ID == e.Leak.ID })
		if i < 0 {
			i = len(all)
			all = append(all, &found{Leak: *e.Leak})
		}
		switch e.Type {
		case tracker.EventSuspect, tracker.EventProven:
			all[i].reasons = append(all[i].reasons, string(e.Reason))
		case tracker.EventReaped:
			all[i].reaped = true
		}
	}
	return all
}

// judge compares what was told with what is marked: no more, no less.
func (p *program) judge(e pattern) {
	p.t.Helper()
	var got, want []string
	told := p.leaks()
	for _, f := range told {
		got = append(got, f.mark().String())
	}
	for _, m := range e.want {
		want = append(want, m.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		p.t.Errorf("found:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		for _, f := range told {
			p.t.Logf("%v\n%v", f.Leak, f.Stack)
		}
		return
	}
	for _, f := range told {
		for _, m := range e.want {
			if s := f.mark(); s.kind != m.kind || s.place != m.place {
				continue
			}
			wanted := func(r string) bool {
				return r == m.reason || m.reason == "" && (r == string(tracker.ReasonLeakAfter) || r == string(tracker.ReasonProven))
			}
			if !wanted(f.reasons[0]) {
				p.t.Errorf("%v: for %s, want %q", m, f.reasons, m.reason)
			}
			undone := !m.exempt && f.Kept == "" && (f.Kind == tracker.KindRows || f.Kind == tracker.KindTransaction || f.reasons[0] == string(tracker.ReasonProven))
			if f.reaped != undone {
				p.t.Errorf("%v: undone: %v, want %v", m, f.reaped, undone)
			}
		}
	}
}

// listed expects that what is marked shows among what is held, long before it
// is a leak.
func (p *program) listed(e pattern) {
	p.t.Helper()
	held := make(map[string]bool)
	for _, h := range p.tracker.Held() {
		held[found{Leak: tracker.Leak{Kind: h.Kind, Stack: h.Stack, Exempt: h.Exempt}}.mark().String()] = true
	}
	for _, m := range e.want {
		// Rows that nothing points to may have been proven by now.
		if m.kind != "rows" && !held[m.String()] {
			p.t.Errorf("%v is not among what is held: %v", m, held)
		}
	}
}

// walks reports whether stacks are walked: without the walk, what the compiler
// makes of a go or defer statement has no frame.
func walks() bool {
	shown := make(chan bool)
	go capturing(shown, 1)
	return <-shown
}

//go:noinline
func capturing(shown chan bool, _ int) {
	shown <- callstack.Capture(nil).Calls("github.com/sqlite-leakguard/sqlite-leakguard.walks.gowrap")
}

// bare are the patterns without a function of the program's own on the stack.
var bare = []string{"DeferByItself", "GoroutineByItself", "InTxThatHangs", "LayerByItself"}

func enough(t *testing.T, what string, n int) {
	t.Helper()
	if n < fewest {
		t.Errorf("%d %s, want at least %d", n, what, fewest)
	}
	t.Logf("%d %s", n, what)
}

// Every way to forget something is found, with its kind and its line, and
// nothing beside it.
func TestCatalogueLeaks(t *testing.T) {
	all := patterns(t, leaking{})
	enough(t, "leak patterns", len(all))
	walking := walks()
	if !walking {
		t.Log("stacks are not walked in this build")
	}
	each(t, all, func(t *testing.T, ctx context.Context, e pattern) {
		if len(e.want) == 0 {
			t.Fatal("nothing is marked")
		}
		if !walking && slices.Contains(bare, e.name) {
			t.Skip("needs the walk along frame pointers")
		}
		p := openProgram(t, ctx, Config{})
		e.run(p)
		sleep(10 * time.Second)
		p.listed(e)
		sleep(25 * time.Minute)
		p.judge(e)
	})
}

// What nobody can close any more is found by the next garbage collection,
// whatever the limits.
func TestCatalogueDropped(t *testing.T) {
	for _, e := range patterns(t, dropping{}) {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			p := openProgram(t, background, Config{Policy: leakAfter(time.Hour)})
			done := make(chan struct{})
			go func() { // on a stack that is gone afterwards
				defer close(done)
				e.run(p)
			}()
			<-done
			collect(t, "proof of all", func() bool { return len(p.events(tracker.EventReaped)) >= len(e.want) })
			for range 3 {
				runtime.GC()
			}
			p.judge(e)
			for _, f := range p.leaks() {
				if !slices.Equal(f.reasons, []string{string(tracker.ReasonProven)}) {
					t.Errorf("%v: for %s, want proven", f.mark(), f.reasons)
				}
			}
		})
	}
}

// Programs that do no wrong are not accused, however long they take.
func TestCatalogueFine(t *testing.T) {
	all := patterns(t, behaving{})
	enough(t, "correct look-alikes", len(all))
	each(t, all, func(t *testing.T, ctx context.Context, e pattern) {
		p := openProgram(t, ctx, Config{SQLite: pausing()})
		e.run(p)
		sleep(20 * time.Minute)
		p.judge(e)
		for _, h := range p.tracker.Held() {
			if h.Kind != tracker.KindStatement && h.Exempt == "" {
				t.Errorf("a look-alike that still holds a %v, opened at %v", h.Kind, h.Site())
			}
		}
	})
}
