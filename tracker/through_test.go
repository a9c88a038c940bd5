package tracker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker/testdata/app/db"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker/testdata/app/sqlc"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker/testdata/app/store"
)

// marked returns the line of the fixture whose comment is the mark, as a Frame
// spells it.
func marked(t *testing.T, path, mark string) string {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata/app", path))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		if line++; strings.HasSuffix(s.Text(), "// "+mark) {
			return fmt.Sprintf("%s:%d", path, line)
		}
	}
	t.Fatalf("%s has no line %q", path, mark)
	return ""
}

// opened returns the stacks of all that f opens by the database.
func opened(t *testing.T, f func(d *db.DB)) (stacks []Stack) {
	h := newHolder(t, false)
	f(&db.DB{Lease: h.Conn, Opened: func() {
		stacks = append(stacks, h.stack())
		h.CheckIn()
	}})
	return stacks
}

func checkSite(t *testing.T, name string, s Stack, site, through string) {
	t.Helper()
	if got := s.Site().String(); got != site || s.Through() != through {
		t.Errorf("%s: %s through %q, want %s through %q", name, got, s.Through(), site, through)
	}
}

// A function that many others call is a helper: what was opened in it was opened by
// its caller, wherever a helper calls another.
func TestSiteOfHelper(t *testing.T) {
	query, all := marked(t, "db/db.go", "query"), marked(t, "db/db.go", "query all")
	get, tx, walk := marked(t, "db/db.go", "get"), marked(t, "db/db.go", "in tx"), marked(t, "db/db.go", "walk")
	h := callersOf(modulePath)
	check := func(name string, s Stack, site, through string) {
		t.Helper()
		if at, over := h.locate(s.Frames()); at.String() != site || framesText(over) != through {
			t.Errorf("%s: %s through %q, want %s through %q", name, at, framesText(over), site, through)
		}
	}
	stacks := make(map[string][]Stack)
	for name := range new(store.Store).Each() {
		if len(stacks) == manyCallers {
			break
		}
		for other, s := range stacks { // not enough yet
			check(fmt.Sprintf("%s of %d", other, len(stacks)), s[2], get, "")
		}
		stacks[name] = opened(t, func(d *db.DB) { (&store.Store{DB: d}).Each()[name]() })
		if len(stacks[name]) != 6 {
			t.Fatalf("%s opened %d", name, len(stacks[name]))
		}
		for _, s := range stacks[name] {
			h.see(s.Frames())
		}
	}
	for name, s := range stacks { // also what was opened before
		at := func(what string) string { return marked(t, "store/store.go", name+" "+what) }
		check(name, s[0], at("query"), query)
		check(name+", nested", s[1], at("query all"), all+", "+query)
		check(name+", generic", s[2], at("get"), get)
		check(name+", by a closure", s[3], at("in tx"), tx)
		check(name+", in a callback", s[4], at("in tx"), query)
		check(name+", recursive", s[5], at("walk"), walk)
		// The process has seen them, too.
		checkSite(t, name, s[1], at("query all"), all+", "+query)
		// Who reads the stack sees the helper.
		if f := s[1].UserFrames(); f[0].String() != query || f[1].String() != all || f[2].String() != at("query all") {
			t.Errorf("frames %v", f[:3])
		}
	}
}

// Many calls by one function and its closures are one caller.
func TestSiteOfManyLines(t *testing.T) {
	rare := marked(t, "db/db.go", "rare")
	for _, s := range opened(t, func(d *db.DB) { (&store.Store{DB: d}).Many() }) {
		if s.Site().String() != rare && !strings.HasSuffix(s.Site().Function, ".Named") {
			t.Errorf("opened at %s through %q, want %s", s.Site(), s.Through(), rare)
		}
	}
}

// What a program calls in its tests only is no helper, else it would depend on the
// tests that ran before where one finds a leak.
func TestTestsAreNoCallers(t *testing.T) {
	for _, c := range []struct {
		f    Frame
		want bool
	}{
		{Frame{Function: "example.com/app/db.TestQuery", File: "/a/db/db_test.go"}, true},
		{Frame{Function: "example.com/app/db_test.TestQuery.func1", File: "/a/db/db_test.go"}, true},
		{Frame{Function: "example.com/app/db.BenchmarkQuery.func1.2", File: "/a/db/db_test.go"}, true},
		{Frame{Function: "example.com/app/db.FuzzQuery", File: "/a/db/db_test.go"}, true},
		{Frame{Function: "example.com/app/db.ExampleQuery", File: "/a/db/db_test.go"}, true},
		{Frame{Function: "example.com/app/db.(*suite).open", File: "/a/db/db_test.go"}, false},
		{Frame{Function: "example.com/app/db.TestConnection", File: "/a/db/db.go"}, false},
	} {
		if got := testFunction(c.f); got != c.want {
			t.Errorf("%+v: %v", c.f, got)
		}
	}
	h := callersOf("example.com/app")
	for i := range 2 * manyCallers {
		h.see([]Frame{
			{Function: "example.com/app/db.Query", File: "/a/db/db.go", Line: 1},
			{Function: fmt.Sprintf("example.com/app/db.Test%d.func1", i), File: "/a/db/db_test.go", Line: 10},
		})
	}
	if h.has(Frame{Function: "example.com/app/db.Query", File: "/a/db/db.go"}) {
		t.Error("16 tests make a helper")
	}
}

func callersOf(main string, deps ...string) *callers {
	return &callers{program: func() modules { return modules{main: main, deps: deps} }}
}

// frames are those of functions, each in a file of its package and on a line of its own.
func framesOf(functions ...string) (frames []Frame) {
	for i, f := range functions {
		frames = append(frames, Frame{Function: f, File: "/src/" + packageOf(f) + "/x.go", Line: i + 1})
	}
	return frames
}

// A site never leaves the program: what a server, a library or a test calls back has
// nobody above it, however often it is called and by whom.
func TestSiteStaysInProgram(t *testing.T) {
	const helper = "example.com/app/db.Query"
	defer wrappers.Store(wrappers.Load())
	SkipPackages("example.com/app/layer")
	lib := []string{"database/sql.(*DB).QueryContext", "database/sql.(*DB).Query"}
	for _, c := range []struct {
		name    string
		caller  string // with %d, of many
		above   []string
		want    string // with "": stays
		through string
	}{
		{name: "called by the program", caller: "example.com/app/api.Handler%d", want: "example.com/app/api.Handler0"},
		{name: "by main", caller: "main.f%d", want: "main.f0"},
		{name: "by what tests have", caller: "example.com/app_test.f%d", want: "example.com/app_test.f0"},
		{name: "by a module inside", caller: "example.com/app/tools.f%d"},
		{name: "by a package that is skipped", caller: "example.com/app/layer.f%d"},
		{name: "by a server", caller: "net/http.Handler%dFunc.ServeHTTP"},
		{name: "by the runtime", caller: "runtime.main%d"},
		{name: "by a testing package", caller: "testing.tRunner%d"},
		{name: "by a framework", caller: "github.com/gin-gonic/gin.(*Context).Next%d"},
		{name: "by a wrapper", caller: "gorm.io/gorm.(*DB).Callback%d"},
		{name: "by a server, called by the program", caller: "net/http.F%d", above: []string{"main.main"}},
		{name: "by a module named alike", caller: "example.com/application.F%d"},
		{name: "by a package without a module", caller: "slices.SortFunc%d"},
	} {
		h := callersOf("example.com/app", "github.com/gin-gonic/gin", "example.com/application", "example.com/app/tools")
		var first []Frame
		for i := range 2 * manyCallers {
			functions := append(slices.Clone(lib), helper, fmt.Sprintf(c.caller, i))
			frames := framesOf(append(functions, c.above...)...)
			if i == 0 {
				first = frames
			}
			h.see(frames)
		}
		site, through := h.locate(first)
		switch {
		case c.want == "" && (site.Function != helper || through != nil):
			t.Errorf("%s: moved to %s", c.name, site.Function)
		case c.want != "" && (site.Function != c.want || len(through) != 1 || through[0].Function != helper):
			t.Errorf("%s: at %s through %v, want %s", c.name, site.Function, through, c.want)
		}
	}
}

// A helper in another module than main gives its site to the program, and to others of
// its own module, not to a third one.
func TestSiteAcrossModules(t *testing.T) {
	h := callersOf("example.com/app", "corp.example/lib", "corp.example/lib/sub", "other.example/jobs")
	const helper = "corp.example/lib/db.Query"
	for i := range manyCallers {
		h.see(framesOf(helper, fmt.Sprintf("example.com/app.F%d", i)))
	}
	for caller, moves := range map[string]bool{
		"example.com/app.F0":        true,
		"main.main":                 true,
		"corp.example/lib/users.Do": true,
		"corp.example/lib/sub.Do":   false, // a module of its own
		"other.example/jobs.run":    false,
		"runtime.goexit":            false,
	} {
		site, _ := h.locate(framesOf(helper, caller))
		if (site.Function == caller) != moves {
			t.Errorf("called by %s: at %s", caller, site.Function)
		}
	}
}

// Without build information a path is judged by its looks.
func TestSiteWithoutModules(t *testing.T) {
	h := callersOf("")
	const helper = "example.com/app/db.Query"
	for i := range manyCallers {
		h.see(framesOf(helper, fmt.Sprintf("example.com/app.F%d", i)))
	}
	for caller, moves := range map[Frame]bool{
		{Function: "example.com/app.F0", File: "/a/x.go"}:                            true,
		{Function: "main.main", File: "/a/x.go"}:                                     true,
		{Function: "net/http.HandlerFunc.ServeHTTP", File: "/go/net/http/server.go"}: false,
		{Function: "example.com/lib.F", File: "/mod/example.com/lib@v1.0.0/x.go"}:    false,
		{Function: "example.com/lib.F", File: "/a/vendor/example.com/lib/x.go"}:      false,
	} {
		if site, _ := h.locate(append(framesOf(helper), caller)); (site == caller) != moves {
			t.Errorf("called by %v: at %v", caller, site)
		}
	}
}

// The closure of an inlined function has the name of who it is inlined in: that makes
// no callers of it.
func TestInlinedClosuresAreOneCaller(t *testing.T) {
	h := callersOf("example.com/app")
	for i := range 2 * manyCallers {
		h.see([]Frame{
			{Function: "example.com/app/db.Query", File: "/a/db/db.go"},
			{Function: fmt.Sprintf("example.com/app/api.H%d.each.func1", i), File: "/a/api/each.go"},
		})
	}
	if h.has(Frame{Function: "example.com/app/db.Query"}) {
		t.Error("one function makes a helper")
	}
}

// What is remembered is bounded.
func TestCallersAreBounded(t *testing.T) {
	h := callersOf("example.com/app")
	for i := range 2 * maxCalled {
		for j := range 2 * manyCallers {
			h.see(framesOf(fmt.Sprintf("example.com/app.Callee%d", i), fmt.Sprintf("example.com/app.Caller%d", j)))
		}
	}
	if len(h.calls) != maxCalled {
		t.Errorf("%d functions are remembered, want %d", len(h.calls), maxCalled)
	}
	for callee, n := range h.calls {
		if !n.helper || n.from != nil {
			t.Fatalf("%v: %+v", callee, n)
		}
	}
}

func TestFunctionNames(t *testing.T) {
	for _, c := range []struct{ function, pkg, own string }{
		{"main.main", "main", "main"},
		{"main.main.func1", "main", "main"},
		{"main.init.0.func1", "main", "init"},
		{"example.com/app/db.(*Store).Get.func2.1", "example.com/app/db", "(*Store).Get"},
		{"example.com/app/db.Store.Get-fm", "example.com/app/db", "Get"},
		{"example.com/app/db.All[...]", "example.com/app/db", "All"},
		{"example.com/app/db.(*Repo[...]).All.func1", "example.com/app/db", "(*Repo).All"},
		{"example.com/app/db.Each-range1", "example.com/app/db", "Each"},
		{"example.com/app/db.Each.func3-range2", "example.com/app/db", "Each"},
		{"example.com/app/db.F.gowrap1", "example.com/app/db", "F"},
		{"example.com/app/db.F.func1.deferwrap2", "example.com/app/db", "F"},
		{"example.com/app/db.glob..func4", "example.com/app/db", "glob"},
		{"example.com/app/db.func1", "example.com/app/db", "func1"},
		{"example.com/app/db.function", "example.com/app/db", "function"},
		{"gopkg.in/x%2ev1.F.func1", "gopkg.in/x%2ev1", "F"},
		{"example.com/app/api.(*Handler).List.(*DB).InTx.func1", "example.com/app/api", "(*DB).InTx"}, // inlined
		{"example.com/app/api.(*Handler).List.Query.func1", "example.com/app/api", "Query"},
		{"", "", ""},
	} {
		if pkg, own := packageOf(c.function), ownName(c.function); pkg != c.pkg || own != c.own {
			t.Errorf("%s: %q, %q", c.function, pkg, own)
		}
	}
}

// sqlc's code is never the site, nor what goes through it; what merely looks like it is.
func TestSiteOfSQLC(t *testing.T) {
	list, get := marked(t, "sqlc/users.sql.go", "list users"), marked(t, "sqlc/users.sql.go", "get user")
	prepared := marked(t, "sqlc/db.go", "prepared")
	var lines [3]string
	stacks := opened(t, func(d *db.DB) {
		q := &sqlc.Queries{DB: d}
		q.ListUsers()
		lines[0] = here()
		q.GetUser()
		lines[1] = here()
		q.WithTx()
	})
	before := func(at string) string {
		var n int
		file, line, _ := strings.Cut(at, ":")
		fmt.Sscan(line, &n)
		return fmt.Sprintf("%s:%d", file, n-1)
	}
	checkSite(t, "a query", stacks[0], before(lines[0]), list)
	checkSite(t, "a prepared query", stacks[1], before(lines[1]), get+", "+prepared)
	checkSite(t, "no query", stacks[2], marked(t, "sqlc/db.go", "with tx"), "")
	for _, c := range []struct {
		f    Frame
		want bool
	}{
		{Frame{Function: "app/db.(*Queries).GetUser", File: "/a/db/users.sql.go"}, true},
		{Frame{Function: "app/db.(*Queries).GetUser.func1", File: "/a/db/users.sql.go"}, true},
		{Frame{Function: "app/db.(*Queries).GetUser", File: "/a/db/users.go"}, false},
		{Frame{Function: "app/db.(*Queries).Close", File: "/a/db/db.go"}, false},
		{Frame{Function: "app/db.GetUser", File: "/a/db/users.sql.go"}, false},
		{Frame{Function: "app/db.(*MyQueries).GetUser", File: "/a/db/users.sql.go"}, false},
	} {
		if got := sqlcFrame(c.f); got != c.want {
			t.Errorf("%v in %s: %v", c.f.Function, c.f.File, got)
		}
	}
}

// What ent generates lies in the program's own package.
func TestSiteOfEnt(t *testing.T) {
	h := callersOf("example.com/app", "entgo.io/ent")
	const all, sqlAll = "example.com/app/ent.(*UserQuery).All", "example.com/app/ent.(*UserQuery).sqlAll"
	through := []string{"database/sql.(*DB).QueryContext", "entgo.io/ent/dialect/sql.Conn.Query", sqlAll, "example.com/app/ent.querierAll[...].func1", all}
	if site, over := h.locate(framesOf(append(through, "example.com/app/api.List")...)); site.Function != "example.com/app/api.List" || over != nil {
		t.Errorf("at %s through %v", site.Function, over)
	}
	// Somebody's own package of that name.
	if site, _ := h.locate(framesOf("database/sql.(*DB).Query", all, "example.com/app/api.List")); site.Function != all {
		t.Errorf("at %s", site.Function)
	}
}

// A query builder stands between the program and database/sql.
func TestSiteOfBuilders(t *testing.T) {
	h := callersOf("example.com/app")
	site, over := h.locate(framesOf("database/sql.(*DB).Query",
		"github.com/Masterminds/squirrel.(*dbRunner).Query", "github.com/Masterminds/squirrel.QueryWith",
		"github.com/Masterminds/squirrel.(*selectData).Query", "github.com/Masterminds/squirrel.SelectBuilder.Query",
		"example.com/app/api.List", "net/http.HandlerFunc.ServeHTTP"))
	if site.Function != "example.com/app/api.List" || over != nil {
		t.Errorf("at %s through %v", site.Function, over)
	}
	for _, f := range []string{
		"github.com/doug-martin/goqu/v9/exec.QueryExecutor.ScanStructs", "github.com/lann/builder.GetStruct",
		"github.com/go-jet/jet/v2/internal/jet.(*serializerStatementInterfaceImpl).Query",
		"github.com/stephenafamo/bob.DB.QueryContext", "github.com/georgysavva/scany/v2/sqlscan.Select",
		"github.com/volatiletech/sqlboiler/v4/queries.(*Query).Bind", "github.com/upper/db/v4/internal/sqladapter.(*session).Query",
	} {
		if !wrapperFrame(f) {
			t.Errorf("%s is not known", f)
		}
	}
}

// SkipFunctions names what is never the site, at any time, once each.
func TestSkipFunctions(t *testing.T) {
	defer passed.Store(passed.Load())
	named := marked(t, "db/db.go", "named")
	stacks := opened(t, func(d *db.DB) { (&store.Store{DB: d}).Many() })
	s := stacks[len(stacks)-1]
	checkSite(t, "not named", s, named, "")
	const name = "github.com/sqlite-leakguard/sqlite-leakguard/tracker/testdata/app/db.(*DB).Named"
	SkipFunctions(name, "", name)
	checkSite(t, "named", s, marked(t, "store/store.go", "many named"), named)
	if n := len(*passed.Load()); n != 1 {
		t.Errorf("%d names", n)
	}

	for _, c := range []struct {
		name, function string
		want           bool
	}{
		{"app/db.Query", "app/db.Query", true},
		{"app/db.Query", "app/db.Query.func1", true},
		{"app/db.Query", "app/db.Query-range1", true},
		{"app/db.Query", "app/db.QueryRow", false},
		{"app/db.Query", "app/db.(*DB).Query", false},
		{"app/db.All", "app/db.All[...]", true},
		{"app/db.All[...]", "app/db.All[...].func1", true},
		{"app/db.(*DB)", "app/db.(*DB).Query", true},
		{"app/db.(*DB)", "app/db.(*DBs).Query", false},
		{"app/db.(*Repo)", "app/db.(*Repo[...]).Get", true},
		{"app/db", "app/db.Query", true},
		{"app/db/", "app/db/sub.Query", true},
		{"app/db", "app/dbs.Query", false},
		{"app/db.v2", "app/db%2ev2.Query", true},
	} {
		passed.Store(nil)
		SkipFunctions(c.name)
		if got := passedFrame(Frame{Function: c.function}); got != c.want {
			t.Errorf("%s, %s: %v", c.name, c.function, got)
		}
	}

	// A closure has the name of who its function is inlined in.
	passed.Store(nil)
	SkipFunctions("example.com/app/db.(*DB).InTx")
	at, over := callersOf("example.com/app").locate([]Frame{
		{Function: "example.com/app/api.List.(*DB).InTx.func1", File: "/app/db/db.go", Line: 1},
		{Function: "example.com/app/db.retry", File: "/app/db/db.go", Line: 2},
		{Function: "example.com/app/db.(*DB).InTx", File: "/app/db/db.go", Line: 3},
		{Function: "example.com/app/api.List", File: "/app/api/list.go", Line: 4},
	})
	if at.Line != 4 || framesText(over) != "db/db.go:1" {
		t.Errorf("at %v through %v", at, over)
	}
}

// Names are added, helpers learned and sites looked for by many at once.
func TestSitesConcurrently(t *testing.T) {
	defer passed.Store(passed.Load())
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 20 {
				for _, s := range opened(t, func(d *db.DB) { (&store.Store{DB: d}).Each()["Orders"]() }) {
					if s.Site() == (Frame{}) {
						t.Error("no site")
					}
				}
			}
		})
		wg.Go(func() {
			for j := range 50 {
				SkipFunctions(fmt.Sprintf("app/db.F%d", i*50+j))
			}
		})
	}
	wg.Wait()
	if n := len(*passed.Load()); n != 200 {
		t.Errorf("%d names, want 200", n)
	}
}

// The line of the caller and that of the helper are in every output.
func TestHelperIsTold(t *testing.T) {
	defer passed.Store(passed.Load())
	SkipFunctions("github.com/sqlite-leakguard/sqlite-leakguard/tracker/testdata/app/db.(*DB).Named")
	stacks := opened(t, func(d *db.DB) { (&store.Store{DB: d}).Many() })
	s := stacks[len(stacks)-1]
	site, through := marked(t, "store/store.go", "many named"), marked(t, "db/db.go", "named")
	both := site + " through " + through

	leak := Leak{Kind: KindRows, Reason: ReasonLeakAfter, Stack: s}
	holder := Holder{Held: Held{Kind: KindTransaction, Stack: s}, Through: ThroughLockingMode}
	blame := Blame{Stack: s, Holders: []Holder{holder, {Held: Held{Stack: s}}}}
	for name, text := range map[string]string{
		"leak": leak.String(), "holder": holder.String(), "blame": blame.String(),
	} {
		if !strings.Contains(text, both) {
			t.Errorf("%s: %s", name, text)
		}
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	logger.Info("x", "leak", leak)
	logger.LogAttrs(t.Context(), slog.LevelInfo, "x", blame.attrs()...)
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, "site="+site+" ") || !strings.Contains(line, "through="+through+" ") || !strings.Contains(line, ".Many ") {
			t.Errorf("log: %s", line)
		}
	}

	const function = "github.com/sqlite-leakguard/sqlite-leakguard/tracker/testdata/app/store.(*Store).Many"
	for _, v := range []any{leak, &leak, holder.Held, blame, BlameCount{Stack: s}} {
		var out struct {
			Site, Function, Through string
			Stack                   []struct {
				Function string
				File     string
				Line     int
			}
		}
		text, err := json.Marshal(v)
		if err != nil || json.Unmarshal(text, &out) != nil || out.Site != site || out.Function != function || out.Through != through ||
			len(out.Stack) < 2 || !strings.HasSuffix(out.Stack[0].Function, ".Named") || out.Stack[1].Function != function || out.Stack[1].Line == 0 {
			t.Errorf("%T: %s, %v", v, text, err)
		}
	}
	var out struct {
		Holders []struct {
			Site, State, Through string
			SiteThrough          string `json:"site_through"`
			Kind                 string
		}
	}
	text, _ := json.Marshal(blame)
	if err := json.Unmarshal(text, &out); err != nil || out.Holders[0].Site != site || out.Holders[0].SiteThrough != through ||
		out.Holders[0].Through != ThroughLockingMode || out.Holders[0].State != "unknown" || out.Holders[0].Kind != "transaction" {
		t.Errorf("%s, %v", text, err)
	}
}
