package leakguard

import (
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// What every query runs through lies together in the binary: nothing of the other
// files comes between. This is Go's linker's doing; if it does otherwise one day, the
// files have lost their purpose.
func TestHotPathLiesTogether(t *testing.T) {
	first, last := entry((*conn).ResetSession), entry((*runner).Close)
	if first >= last {
		t.Fatalf("the first function is at %#x, the last at %#x", first, last)
	}
	seen := make(map[string]bool)
	for pc := first; pc <= last; pc++ {
		if f := runtime.FuncForPC(pc); f == nil || f.Entry() != pc {
			continue
		}
		var f runtime.Frame
		for frames, more := runtime.CallersFrames([]uintptr{pc + 1}), true; more; {
			f, more = frames.Next() // the last one is not what is inlined in it
		}
		file := filepath.Base(f.File)
		if !strings.HasPrefix(file, "hotpath_") {
			t.Fatalf("%s of %s is between them", f.Function, file)
		}
		seen[file] = true
	}
	if len(seen) != 3 {
		t.Errorf("files %v, want all three", seen)
	}
}

func entry(function any) uintptr {
	return runtime.FuncForPC(reflect.ValueOf(function).Pointer()).Entry()
}
