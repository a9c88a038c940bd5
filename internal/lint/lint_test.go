// Package lint checks what the compiler does not: which part of the module may
// import which (ARCHITECTURE.md, "The parts").
package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sqlite-leakguard/sqlite-leakguard"

// layer says what the packages of one part may import beside the standard
// library. Paths ending in "/" stand for everything below, those of this module
// are relative to it and begin with "./".
type layer struct {
	path  string // of the part and, if it ends in "/", of everything below
	may   []string
	tests []string // in addition, its tests
	raw   bool     // "C" and unsafe
	why   string
}

var layers = []layer{
	{
		path: "./internal/capi",
		raw:  true, tests: []string{"github.com/mattn/go-sqlite3"},
		why: "it stands at the bottom: it imports nothing of the module",
	},
	{
		path: "./internal/meminfo",
		may:  []string{"github.com/shirou/gopsutil/v3/"},
		why:  "it stands at the bottom: gopsutil and nothing of the module",
	},
	{
		path:  "./internal/callstack",
		tests: []string{"./internal/callstack/testdata/"},
		why:   "it stands at the bottom: the standard library and nothing of the module",
	},
	{
		path: "./internal/proclocks",
		why:  "it stands at the bottom: the standard library and nothing of the module",
	},
	{
		path:  "./internal/sqltext",
		tests: []string{"github.com/mattn/go-sqlite3"},
		why:   "it stands at the bottom: the standard library and nothing of the module",
	},
	{
		path: "./internal/gate",
		why:  "it stands at the bottom: the standard library and nothing of the module",
	},
	{
		path:  "./internal/model",
		tests: []string{"./internal/gate"},
		why:   "it looks at the code's text, and at the bits of the gate",
	},
	{
		path: "./tracker/",
		may:  []string{"./tracker/", "./internal/gate", "./internal/callstack", "./internal/proclocks", "./internal/sqltext"},
		why:  "the tracker is standard library only",
	},
	{
		path: "./otel",
		may:  []string{"./tracker/", "go.opentelemetry.io/otel/"},
		why:  "it consumes the tracker and builds without cgo",
	},
	{
		path:  "./debughttp",
		may:   []string{"./tracker/", "github.com/google/pprof/profile"}, // the profile's format
		tests: []string{"."},
		why:   "it consumes the tracker and builds without cgo",
	},
	{
		path:  "./leakguardtest",
		may:   []string{"./tracker/"},
		tests: []string{"."},
		why:   "it consumes the tracker and builds without cgo",
	},
	{
		path:  ".",
		may:   []string{"./tracker/", "./internal/gate", "./internal/capi", "./internal/callstack", "./internal/meminfo", "./internal/sqltext", "github.com/mattn/go-sqlite3"},
		tests: []string{"./testdata/"},
		why:   "the driver stands on the tracker and on SQLite, and knows no exporter",
	},
	{
		path: "./examples/",
		may:  []string{".", "./tracker/", "./otel", "./debughttp", "./leakguardtest", "github.com/mattn/go-sqlite3"},
		why:  "an example uses what a user can use",
	},
	{
		path: "./internal/lint",
		why:  "it only runs the go command",
	},
}

// modules are what the library's go.mod may require directly.
var modules = []string{
	"github.com/mattn/go-sqlite3",
	"go.uber.org/goleak",      // by tests
	"github.com/google/pprof", // the profile's format, by debughttp
	"github.com/shirou/gopsutil/v3",
	"go.opentelemetry.io/otel",
	"go.opentelemetry.io/otel/",
}

// testOnly is what the tests of every part may import.
const testOnly = "go.uber.org/goleak"

// listed is what go list prints of a package, as far as it matters here.
type listed struct {
	Dir, ImportPath                    string
	Imports, TestImports, XTestImports []string
	IgnoredGoFiles                     []string
}

func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append(append([]string{"list", "-e", "-json"}, args...), "./...")...)
	cmd.Dir = filepath.Join("..", "..")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &errs)
	}
	var packages []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		// Files that another platform or build tag selects count as well.
		for _, name := range p.IgnoredGoFiles {
			imports := importsOf(t, filepath.Join(p.Dir, name))
			if strings.HasSuffix(name, "_test.go") {
				p.XTestImports = append(p.XTestImports, imports...)
			} else {
				p.Imports = append(p.Imports, imports...)
			}
		}
		packages = append(packages, p)
	}
}

func importsOf(t *testing.T, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, s := range f.Imports {
		path, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// short spells an import path as the table does.
func short(path string) string {
	if path == module {
		return "."
	}
	if rest, ok := strings.CutPrefix(path, module+"/"); ok {
		return "./" + rest
	}
	return path
}

// within reports whether a pattern of the table stands for a path.
func within(pattern, path string) bool {
	below, all := strings.CutSuffix(pattern, "/")
	return path == below || all && strings.HasPrefix(path, pattern)
}

func layerOf(path string) *layer {
	i := slices.IndexFunc(layers, func(l layer) bool { return within(l.path, path) })
	if i < 0 {
		return nil
	}
	return &layers[i]
}

// bad returns one line for each edge that must not be.
func bad(packages []listed) []string {
	var lines []string
	for _, p := range packages {
		from := short(p.ImportPath)
		l := layerOf(from)
		if l == nil {
			lines = append(lines, from+" belongs to no part: add it to the table in internal/lint and to ARCHITECTURE.md")
			continue
		}
		edges := func(imports, also []string, how string) {
			for _, path := range imports {
				if to := short(path); !l.allows(from, to, also) {
					lines = append(lines, fmt.Sprintf("%s must not import %s%s: %s", from, to, how, l.reason(to)))
				}
			}
		}
		tests := append([]string{from, testOnly}, l.tests...)
		edges(p.Imports, nil, "")
		edges(p.TestImports, tests, " in tests")
		edges(p.XTestImports, tests, " in tests")
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

func (l *layer) allows(from, to string, also []string) bool {
	match := func(pattern string) bool { return within(pattern, to) }
	switch {
	case to == "C" || to == "unsafe":
		return l.raw
	case slices.ContainsFunc(l.may, match), slices.ContainsFunc(also, match):
		return true
	}
	// The first part of a path outside the standard library has a dot.
	first, _, _ := strings.Cut(to, "/")
	return !strings.Contains(first, ".")
}

func (l *layer) reason(to string) string {
	if to == "C" || to == "unsafe" {
		return "only ./internal/capi does"
	}
	return l.why
}

func TestImportsGoDownward(t *testing.T) {
	packages := list(t)
	for _, want := range []string{".", "./tracker", "./internal/capi", "./examples/quickstart"} {
		if !slices.ContainsFunc(packages, func(p listed) bool { return short(p.ImportPath) == want }) {
			t.Errorf("go list does not show %s: what is checked here?", want)
		}
	}
	for _, p := range packages {
		if short(p.ImportPath) == "./internal/capi" && !slices.Contains(p.Imports, "C") {
			t.Error(`internal/capi does not import "C": is this a build without cgo?`)
		}
	}
	for _, line := range bad(packages) {
		t.Error(line)
	}
}

// A bad edge in the real tree is seen: one is planted with -overlay.
func TestPlantedEdge(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, source := range map[string]string{
		"tracker/planted.go":             "package tracker\n\nimport _ \"github.com/mattn/go-sqlite3\"\n",
		"planted.go":                     "package leakguard\n\nimport _ \"unsafe\"\n",
		"debughttp/planted.go":           "package debughttp\n\nimport _ \"" + module + "/internal/capi\"\n",
		"somewhere/planted.go":           "package somewhere\n",
		"internal/capi/planted_test.go":  "package capi\n\nimport _ \"" + module + "/tracker\"\n",
		"internal/lint/planted_linux.go": "package lint\n",
	} {
		file := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(root, name)] = file
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	got := bad(list(t, "-overlay", file))
	for _, want := range []string{
		"./tracker must not import github.com/mattn/go-sqlite3: the tracker is standard library only",
		". must not import unsafe: only ./internal/capi does",
		"./debughttp must not import ./internal/capi: it consumes the tracker and builds without cgo",
		"./internal/capi must not import ./tracker in tests: it stands at the bottom: it imports nothing of the module",
		"./somewhere belongs to no part: add it to the table in internal/lint and to ARCHITECTURE.md",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no line %q in %q", want, got)
		}
	}
}

// Each rule of the table, on packages that exist only here.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		from, to string
		test     bool
		want     bool
	}{
		{from: "./tracker", to: "net/http", want: true},
		{from: "./tracker", to: "./tracker/stack", want: true},
		{from: "./tracker", to: ".", want: false},
		{from: "./tracker", to: "./internal/capi", want: false},
		{from: "./tracker", to: "unsafe", want: false},
		{from: "./tracker", to: testOnly, want: false},
		{from: "./tracker", to: testOnly, test: true, want: true},
		{from: "./tracker", to: "./tracker", test: true, want: true},
		{from: "./tracker", to: ".", test: true, want: false},
		{from: "./tracker", to: "./internal/callstack", want: true},
		{from: "./internal/callstack", to: "./tracker", want: false},
		{from: "./internal/callstack", to: "unsafe", want: false},
		{from: "./internal/capi", to: "C", want: true},
		{from: "./internal/capi", to: "unsafe", want: true},
		{from: "./internal/capi", to: "github.com/mattn/go-sqlite3", want: false},
		{from: "./internal/capi", to: "github.com/mattn/go-sqlite3", test: true, want: true},
		{from: ".", to: "./tracker", want: true},
		{from: ".", to: "./internal/capi", want: true},
		{from: ".", to: "./otel", want: false},
		{from: ".", to: "go.opentelemetry.io/otel/metric", want: false},
		{from: ".", to: "go.opentelemetry.io/otel", test: true, want: false},
		{from: ".", to: "C", want: false},
		{from: ".", to: "example.com/other", want: false},
		{from: "./otel", to: "./tracker", want: true},
		{from: "./otel", to: "go.opentelemetry.io/otel", want: true},
		{from: "./otel", to: "go.opentelemetry.io/otel/sdk/metric", test: true, want: true},
		{from: "./otel", to: ".", want: false},
		{from: "./otel", to: ".", test: true, want: false},
		{from: "./otel", to: "./debughttp", want: false},
		{from: "./debughttp", to: "./leakguardtest", want: false},
		{from: "./debughttp", to: "github.com/google/pprof/profile", want: true},
		{from: "./debughttp", to: "github.com/google/pprof/driver", want: false},
		{from: "./debughttp", to: ".", want: false},
		{from: "./debughttp", to: ".", test: true, want: true},
		{from: "./leakguardtest", to: ".", want: false},
		{from: "./leakguardtest", to: ".", test: true, want: true},
		{from: "./leakguardtest", to: "./internal/capi", want: false},
		{from: "./examples/quickstart", to: ".", want: true},
		{from: "./examples/quickstart", to: "./internal/capi", want: false},
	} {
		full := func(path string) string {
			if path == "." {
				return module
			}
			if rest, ok := strings.CutPrefix(path, "./"); ok {
				return module + "/" + rest
			}
			return path
		}
		p := listed{ImportPath: full(c.from)}
		if c.test {
			p.XTestImports = []string{full(c.to)}
		} else {
			p.Imports = []string{full(c.to)}
		}
		lines := bad([]listed{p})
		if (len(lines) == 0) != c.want {
			t.Errorf("%s imports %s (in tests: %v): %q", c.from, c.to, c.test, lines)
		}
		if !c.want && (len(lines) != 1 || !strings.HasPrefix(lines[0], c.from+" must not import "+c.to)) {
			t.Errorf("%q does not name the edge from %s to %s", lines, c.from, c.to)
		}
	}
}

// requirement is a line of go.mod.
type requirement struct {
	Path     string
	Indirect bool
}

// badModules returns one line for each module that is required directly and
// not allowed.
func badModules(require []requirement) []string {
	var lines []string
	for _, r := range require {
		if !r.Indirect && !slices.ContainsFunc(modules, func(m string) bool { return within(m, r.Path) }) {
			lines = append(lines, "go.mod must not require "+r.Path+": what the library needs is listed in internal/lint")
		}
	}
	return lines
}

func TestModules(t *testing.T) {
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Module  struct{ Path string }
		Require []requirement
		Replace []struct{ Old struct{ Path string } }
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	if mod.Module.Path != module || len(mod.Require) == 0 {
		t.Fatalf("go.mod of %q with %d requirements: what is checked here?", mod.Module.Path, len(mod.Require))
	}
	for _, line := range badModules(mod.Require) {
		t.Error(line)
	}
	for _, r := range mod.Replace {
		t.Errorf("go.mod must not replace %s: whoever uses the module does not get it", r.Old.Path)
	}

	planted := []requirement{
		{Path: "github.com/mattn/go-sqlite3"},
		{Path: "go.opentelemetry.io/otel"},
		{Path: "go.opentelemetry.io/otel/log"},
		{Path: "go.opentelemetry.io/contrib"},
		{Path: "github.com/stretchr/testify", Indirect: true},
		{Path: "github.com/shirou/gopsutil/v4"},
	}
	want := []string{
		"go.mod must not require go.opentelemetry.io/contrib: what the library needs is listed in internal/lint",
		"go.mod must not require github.com/shirou/gopsutil/v4: what the library needs is listed in internal/lint",
	}
	if got := badModules(planted); !slices.Equal(got, want) {
		t.Errorf("planted: %q, want %q", got, want)
	}
}

// gopsutil's processes need go-m1cpu, which reads the hardware when a program
// starts, before main. Up to v0.1.7 that crashes on newer Macs
// (https://github.com/slingdata-io/sling-cli/issues/735); gopsutil/v3 asks for
// v0.1.6. The requirement in go.mod holds for all who use the module.
func TestM1CPU(t *testing.T) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/shoenig/go-m1cpu")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if v := strings.TrimSpace(string(out)); v == "" || strings.HasPrefix(v, "v0.0.") || strings.HasPrefix(v, "v0.1.") {
		t.Errorf("go-m1cpu %s crashes on newer Macs: want v0.2.1 or later", v)
	}
}
