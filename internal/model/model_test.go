// Package model keeps gate.pml, a model of the gate's protocol, in step with the
// code that it follows. README.md says what it is for; check runs it.
package model

import (
	"bufio"
	"crypto/sha256"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

var renew = flag.Bool("renew", false, "write the list of functions again")

// functions lists what gate.pml follows: file, function and a hash of its text, or
// "-" for one that it need not follow.
const functions = "functions"

// whole are the files of which each function is on the list.
var whole = []string{"internal/gate/word.go", "internal/gate/gate.go", "internal/gate/turn.go", "carry.go", "watch.go", "tracker/recording.go"}

const root = "../.."

// declared returns the functions and methods of a file, by name: a method's is
// written as Type.Method.
func declared(t *testing.T, file string) map[string]*ast.FuncDecl {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]*ast.FuncDecl)
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := fn.Name.Name
		if fn.Recv != nil {
			of := fn.Recv.List[0].Type
			if p, ok := of.(*ast.StarExpr); ok {
				of = p.X
			}
			if id, ok := of.(*ast.Ident); ok {
				name = id.Name + "." + name
			}
		}
		found[name] = fn
	}
	return found
}

// hash is of the function's text without comments and layout.
func hash(t *testing.T, fn *ast.FuncDecl) string {
	t.Helper()
	h := sha256.New()
	// In a file set that knows no position, all code has one layout.
	if err := printer.Fprint(h, token.NewFileSet(), fn); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// TestModelIsInStep fails when a function that the model follows has changed and
// nobody has looked at the model.
func TestModelIsInStep(t *testing.T) {
	list, err := os.Open(functions)
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	model, err := os.ReadFile("gate.pml")
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]map[string]*ast.FuncDecl)
	listed := make(map[string]bool)
	var now []string
	for lines := bufio.NewScanner(list); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			t.Fatalf("%s: %q: want file, function and hash", functions, lines.Text())
		}
		file, name := fields[0], fields[1]
		if files[file] == nil {
			files[file] = declared(t, file)
		}
		fn := files[file][name]
		if fn == nil {
			t.Errorf("%s has no %s any more. Look where its part of gate.pml went, run internal/model/check all and mutations, and mend the list in internal/model/%s by hand", file, name, functions)
			continue
		}
		listed[file+" "+name] = true
		if len(fields) == 3 && fields[2] == "-" {
			now = append(now, lines.Text()+"\n")
			continue
		}
		if !regexp.MustCompile(`\b` + regexp.QuoteMeta(fn.Name.Name) + `\b`).Match(model) {
			t.Errorf("gate.pml does not name %s of %s, which it follows", name, file)
		}
		h := hash(t, fn)
		now = append(now, fmt.Sprintf("%s\t%s\t%s\n", file, name, h))
		if !*renew && (len(fields) < 3 || fields[2] != h) {
			t.Errorf("%s: %s has changed. Look at the model: does its part of gate.pml still do the same? Then run internal/model/check all and mutations, and renew the list with: go test ./internal/model -renew", file, name)
		}
	}
	for _, file := range whole {
		for name := range declared(t, file) {
			if !listed[file+" "+name] {
				t.Errorf(`%s: %s is new. Does gate.pml have to follow it? Add "%[1]s %[2]s" to internal/model/%s, with "-" behind it if not, and run: go test ./internal/model -renew`, file, name, functions)
			}
		}
	}
	if *renew && !t.Failed() {
		if err := os.WriteFile(functions, []byte(strings.Join(now, "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// defines returns the constants of gate.pml.
func defines(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("gate.pml")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^#define ([A-Z]+) +(.*?) *(?:/\*.*)?$`).FindAllStringSubmatch(string(text), -1) {
		found[m[1]] = m[2]
	}
	return found
}

// TestBits compares the bits of the word in gate.pml with those in the code.
func TestBits(t *testing.T) {
	bits := map[string]uint64{
		"Busy": gate.Busy, "Reaping": gate.Reaping, "Interrupt": gate.Interrupt, "Condemned": gate.Condemned,
		"Tombed": gate.Tombed, "Dead": gate.Dead, "Watched": gate.Watched, "Beside": gate.Beside,
		"Stopped": gate.Stopped, "Attended": gate.Attended, "Ending": gate.Ending, "Recording": gate.Recording,
		"Reading": gate.Reading, "Sharing": gate.Sharing, "Awaited": gate.Awaited, "Closing": gate.Closing,
	}
	model := defines(t)
	for name, want := range bits {
		if got := model[strings.ToUpper(name)]; got != strconv.FormatUint(want, 10) {
			t.Errorf("%s is %d in the code and %q in gate.pml", name, want, got)
		}
	}
	for name, want := range map[string]uint64{"FLAGS": gate.Flags, "OPERATION": gate.Flags + 1} {
		if model[name] != strconv.FormatUint(want, 10) {
			t.Errorf("%s is %d in the code and %q in gate.pml", name, want, model[name])
		}
	}

	// A bit that is new in the code is not overlooked, and those that end with an
	// operation are the same.
	source, err := os.ReadFile(filepath.Join(root, "internal/gate/word.go"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(source), "1 << iota\n")
	block, _, _ = strings.Cut(block, ")")
	if n := len(strings.Fields(block)) + 1; n != len(bits) {
		t.Errorf("word.go has %d bits, want %d", n, len(bits))
	}
	ends := regexp.MustCompile(`ofOne += (.*)`).FindStringSubmatch(string(source))
	if ends == nil || "("+strings.ToUpper(ends[1])+")" != model["OFONE"] {
		t.Errorf("ofOne is %q in the code and %q in gate.pml", ends, model["OFONE"])
	}
}
