package tracker

import (
	"cmp"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
)

// Stack is a call stack, innermost frame first, as the program counters that
// runtime.CallersFrames takes. It is shared: read it, do not change it.
type Stack []uintptr

// Frame is one call of a stack.
type Frame struct {
	Function string `json:"function"`
	File     string `json:"file"`
	Line     int    `json:"line"`
}

// String returns the frame as "dir/file.go:line", or "unknown" for the zero
// Frame.
func (f Frame) String() string {
	if f.File == "" {
		return "unknown"
	}
	dir, file := path.Split(f.File)
	if dir = path.Base(dir); dir != "." && dir != "/" {
		file = dir + "/" + file
	}
	return file + ":" + strconv.Itoa(f.Line)
}

// MarshalText spells a frame as String does.
func (f Frame) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// Frames resolves the whole stack, inlined calls included.
func (s Stack) Frames() []Frame {
	if len(s) == 0 {
		return nil
	}
	var out []Frame
	frames := runtime.CallersFrames(s)
	for {
		f, more := frames.Next()
		if f.Function != "" || f.File != "" {
			out = append(out, Frame{Function: f.Function, File: f.File, Line: f.Line})
		}
		if !more {
			return out
		}
	}
}

// place is the line of a stack's innermost call in the program, which may be reached
// by many stacks; the zero place if that is not known. What is counted by place, and
// undone for it, does not depend on which functions are taken for helpers by then.
type place struct {
	file string
	line int
}

// before orders places, so that of two nobody tosses for it.
func (p place) before(q place) bool {
	return cmp.Or(cmp.Compare(p.file, q.file), cmp.Compare(p.line, q.line)) < 0
}

// placed is the place of a stack as long as the wrappers are the same.
type placed struct {
	place
	wrappers *[]string
}

// placeOf returns the place of a stack. It resolves each stack once.
func placeOf(s *callstack.Stack) place {
	if s == nil {
		return place{}
	}
	skipped := wrappers.Load()
	if p, ok := s.Note().(placed); ok && p.wrappers == skipped {
		return p.place
	}
	f := Stack(s.PCs()).innermost()
	p := place{f.File, f.Line}
	s.Annotate(placed{p, skipped})
	return p
}

// String returns the stack as a panic prints it, without the guard's own
// frames.
func (s Stack) String() string {
	var b strings.Builder
	user := false
	for _, f := range s.Frames() {
		if !user && internalFrame(f) {
			continue
		}
		user = true
		b.WriteString(f.Function)
		b.WriteString("\n\t")
		b.WriteString(f.File)
		b.WriteByte(':')
		b.WriteString(strconv.Itoa(f.Line))
		b.WriteByte('\n')
	}
	return b.String()
}

// internalPrefixes are the functions that stand between a program and the
// place where its call is recorded.
var internalPrefixes = []string{
	"runtime.",
	"reflect.", // calls database/sql by itself where it is told to, and so does
	"sync.",    // OnceValues
	"database/sql.",
	modulePath + ".",
	modulePath + "/tracker.",
	modulePath + "/internal/",
}

// wrappers are the import paths of libraries through which programs call
// database/sql: what is looked for is who called them.
var wrappers = func() *atomic.Pointer[[]string] {
	var p atomic.Pointer[[]string]
	p.Store(&[]string{
		"entgo.io/ent",
		"github.com/DataDog/dd-trace-go",
		"github.com/Masterminds/squirrel",
		"github.com/XSAM/otelsql",
		"github.com/aarondl/sqlboiler",
		"github.com/astaxie/beego/orm",
		"github.com/beego/beego/v2/client/orm",
		"github.com/blockloop/scan",
		"github.com/cockroachdb/cockroach-go",
		"github.com/doug-martin/goqu",
		"github.com/elgris/sqrl",
		"github.com/georgysavva/scany",
		"github.com/go-gorp/gorp",
		"github.com/go-jet/jet",
		"github.com/go-rel/rel",
		"github.com/go-xorm/xorm",
		"github.com/gocraft/dbr",
		"github.com/jinzhu/gorm",
		"github.com/jmoiron/sqlx",
		"github.com/lann/builder",
		"github.com/luna-duclos/instrumentedsql",
		"github.com/mailru/dbr",
		"github.com/ngrok/sqlmw",
		"github.com/qustavo/sqlhooks",
		"github.com/russross/meddler",
		"github.com/simukti/sqldb-logger",
		"github.com/stephenafamo/bob",
		"github.com/stephenafamo/scan",
		"github.com/upper/db",
		"github.com/uptrace/bun",
		"github.com/volatiletech/sqlboiler",
		"go.elastic.co/apm/module/apmsql",
		"go.nhat.io/otelsql",
		"gopkg.in/DataDog/dd-trace-go.v1",
		"gopkg.in/gorp.v1",
		"gopkg.in/gorp.v2",
		"gopkg.in/gorp.v3",
		"gorm.io",
		"upper.io/db.v3",
		"xorm.io",
	})
	return &p
}()

// SkipPackages adds import paths of libraries, with everything below them,
// whose functions are never the site of a leak: whoever called them is. Known
// are sqlx, squirrel, goqu, gorm, bun, ent, xorm, gorp, bob, jet, sqlboiler, dbr,
// upper/db, scany and the usual driver wrappers. It holds for the whole process and
// for what was recorded before as well. For single functions of the program itself
// there is [SkipFunctions].
func SkipPackages(importPaths ...string) {
	for {
		old := wrappers.Load()
		all := slices.Clone(*old)
		for _, p := range importPaths {
			if p = strings.TrimSuffix(p, "/"); p != "" && !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
		if wrappers.CompareAndSwap(old, &all) {
			return
		}
	}
}

// wrapperFrame reports whether a function belongs to a wrapper.
func wrapperFrame(function string) bool { return ofPackages(function, *wrappers.Load()) }

// ofPackages reports whether a function belongs to one of the packages, or to one
// below. In the name of a function, a dot in the last element of the import path is
// spelled %2e.
func ofPackages(function string, importPaths []string) bool {
	for _, p := range importPaths {
		dir, last := path.Split(p)
		p = dir + strings.ReplaceAll(last, ".", "%2e")
		if rest, ok := strings.CutPrefix(function, p); ok && (rest == "" || rest[0] == '.' || rest[0] == '/') {
			return true
		}
		if rest, ok := strings.CutPrefix(function, dir+last); ok && rest != "" && rest[0] == '/' {
			return true
		}
	}
	return false
}

// modulePath is this module's, taken from a function of this package so that a
// fork or a vendored copy keeps working.
var modulePath = func() string {
	pc, _, _, _ := runtime.Caller(0)
	name := runtime.FuncForPC(pc).Name()
	if i := strings.Index(name, "/tracker."); i > 0 {
		return name[:i]
	}
	return "github.com/sqlite-leakguard/sqlite-leakguard"
}()

func internalFrame(f Frame) bool {
	if strings.HasSuffix(f.File, "_test.go") {
		return false // the guard's own tests are users of it
	}
	for _, p := range internalPrefixes {
		if strings.HasPrefix(f.Function, p) {
			return true
		}
	}
	return wrapperFrame(f.Function)
}
