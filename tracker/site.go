package tracker

import (
	"path"
	"runtime"
	"strconv"
	"strings"
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

// Site returns the call that opened the resource: the innermost frame that
// belongs neither to the runtime, nor to database/sql, nor to the guard. The
// zero Frame if nothing was recorded.
func (s Stack) Site() Frame {
	frames := s.Frames()
	for _, f := range frames {
		if !internalFrame(f) {
			return f
		}
	}
	if len(frames) > 0 {
		return frames[0]
	}
	return Frame{}
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
	"database/sql.",
	modulePath + ".",
	modulePath + "/tracker.",
	modulePath + "/internal/",
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
	return false
}
