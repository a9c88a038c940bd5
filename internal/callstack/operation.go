package callstack

import (
	"runtime"
	"strings"
)

const (
	operationUnknown uint32 = iota
	operationYes
	operationNo
)

// InOperation reports whether the stack, taken where database/sql takes a
// connection from its pool or opens one, belongs to an operation that uses the
// connection at once: DB.Query and the like, but not DB.Conn, which hands it to
// the program. What the operation opens then has the same callers. It is found
// out once for each stack; false if it is not plain.
func (s *Stack) InOperation() bool {
	return s != nil && (s.operation.Load() == operationYes || s.findOperation())
}

// findOperation is InOperation where it is not known yet, or false.
func (s *Stack) findOperation() bool {
	known := s.operation.Load()
	if known == operationUnknown {
		known = operationNo
		if inOperation(s.pcs) {
			known = operationYes
		}
		s.operation.Store(known)
	}
	return known == operationYes
}

// inOperation looks for the caller of the function that finds a connection.
// Nobody may stand between that and the guard: a driver around it would be taken
// for the program.
func inOperation(pcs []uintptr) bool {
	const find, hand = "database/sql.(*DB).conn", "database/sql.(*DB).Conn"
	found := false
	for frames, more := runtime.CallersFrames(pcs), len(pcs) > 0; more; {
		var f runtime.Frame
		f, more = frames.Next()
		if found {
			return strings.HasPrefix(f.Function, "database/sql.") && !strings.HasPrefix(f.Function, hand)
		}
		found = f.Function == find
		if !found && !strings.HasPrefix(f.Function, "database/sql.") &&
			(!strings.HasPrefix(f.Function, module) || strings.HasSuffix(f.File, "_test.go")) {
			return false
		}
	}
	return false
}

// module begins the names of the guard's own functions.
var module = func() string {
	pc, _, _, _ := runtime.Caller(0)
	name, _, _ := strings.Cut(runtime.FuncForPC(pc).Name(), "/internal/")
	return name
}()
