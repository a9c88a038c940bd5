package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The guard never opens a database, its -wal, -shm or -journal in the program's
// process: closing any descriptor of a file drops all POSIX locks that the process
// holds on it, see https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_.
// Only stat and SQLite itself are used.

// openers are the functions that open, create or change a file by its path.
var openers = map[string][]string{
	"os": {
		"Open", "OpenFile", "OpenInRoot", "OpenRoot", "Create", "CreateTemp", "ReadFile", "WriteFile", "Truncate", "CopyFS",
		"DirFS", "Rename", "Remove", "RemoveAll", "Link", "Symlink", "Chmod", "Chown", "NewFile",
	},
	"syscall":               {"Open", "Openat", "Creat", "Truncate", "Rename", "Unlink", "Link", "Flock", "FcntlFlock"},
	"golang.org/x/sys/unix": {"Open", "Openat", "Openat2", "Creat"},
	"io/ioutil":             {"ReadFile", "WriteFile"},
}

// mustNotOpen are the packages that know the path of a database, and so must not.
var mustNotOpen = []string{".", "tracker", "internal/capi"}

// opens returns one line for each call in a source file that opens a file.
func opens(name string, src any) (lines []string, err error) {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	forbidden := make(map[string][]string) // by the package's name in the file
	for _, imp := range f.Imports {
		path := strings.Trim(imp.Path.Value, `"`)
		short := filepath.Base(path)
		if imp.Name != nil {
			short = imp.Name.Name
		}
		forbidden[short] = openers[path]
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if p, ok := s.X.(*ast.Ident); ok && slices.Contains(forbidden[p.Name], s.Sel.Name) {
				lines = append(lines, fmt.Sprintf("%s: %s.%s: the guard never opens a file of a database itself, stat and SQLite are all it uses",
					set.Position(s.Pos()), p.Name, s.Sel.Name))
			}
		}
		return true
	})
	return lines, nil
}

func TestNothingOpensFiles(t *testing.T) {
	root := filepath.Join("..", "..")
	for _, dir := range mustNotOpen {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v: what is checked here?", dir, len(files), err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines, err := opens(file, src)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range lines {
				t.Error(line)
			}
		}
	}
}

// A call that opens is seen, under whatever name its package is imported.
func TestPlantedOpen(t *testing.T) {
	for src, want := range map[string]int{
		"package p\nimport \"os\"\nvar _, _ = os.Open(\"a.db-wal\")":                           1,
		"package p\nimport fs \"os\"\nfunc f() { g := fs.OpenFile; g(\"a.db\", 0, 0) }":        1,
		"package p\nimport \"syscall\"\nfunc f() { syscall.Open(\"a.db\", 0, 0) }":             1,
		"package p\nimport \"os\"\nvar _, _ = os.Stat(\"a.db\")":                               0,
		"package p\ntype o struct{}\nfunc (o) Open(string) {}\nfunc f(os o) { os.Open(\"\") }": 0,
	} {
		lines, err := opens("planted.go", src)
		if err != nil || len(lines) != want {
			t.Errorf("%q: %q, %v, want %d", src, lines, err, want)
		}
	}
}
