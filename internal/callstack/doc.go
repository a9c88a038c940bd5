// Package callstack records call stacks at next to no cost.
//
// A stack is walked along its frame pointers, about a nanosecond a frame, and
// interned: what is kept for each is one pointer. The first time a stack is
// seen, runtime.Callers walks it once more, because frame pointers do not show
// inlined calls: the same return addresses always belong to the same calls.
//
// Where there are no frame pointers to walk (other than amd64 and arm64), or a
// check at start finds that the walk and runtime.Callers disagree,
// runtime.Callers alone is used, at about a microsecond a stack.
package callstack
