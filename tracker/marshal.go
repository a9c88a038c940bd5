package tracker

import "encoding/json"

// stackJSON is a call stack in the JSON form of the thing that it belongs to.
type stackJSON struct {
	// Site is "dir/file.go:line", Function its full name; Through is as in
	// Stack.Through. All are absent if nothing was recorded.
	Site     string      `json:"site,omitempty"`
	Function string      `json:"function,omitempty"`
	Through  string      `json:"through,omitempty"`
	Stack    []frameJSON `json:"stack,omitempty"`
}

// frameJSON is a Frame in all its parts.
type frameJSON struct {
	Function string `json:"function"`
	File     string `json:"file"`
	Line     int    `json:"line"`
}

func (s Stack) json() stackJSON {
	site, through := s.locate()
	if site == (Frame{}) {
		return stackJSON{}
	}
	out := stackJSON{Site: site.String(), Function: site.Function, Through: framesText(through)}
	for _, f := range s.UserFrames() {
		out.Stack = append(out.Stack, frameJSON(f))
	}
	return out
}

// MarshalJSON adds "site" (as "dir/file.go:line"), "function", "through" (see
// [Stack.Through]) and "stack" (of function, file and line, see [Stack.UserFrames]).
// Durations are in nanoseconds.
func (l Leak) MarshalJSON() ([]byte, error) {
	type plain Leak
	return json.Marshal(struct {
		plain
		stackJSON
	}{plain(l), l.Stack.json()})
}

// plainHeld is what is marshalled of Held by its tags.
type plainHeld Held

// MarshalJSON adds where it was opened, as that of Leak does.
func (h Held) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		plainHeld
		stackJSON
	}{plainHeld(h), h.Stack.json()})
}

// MarshalJSON adds who ran the operation, as that of Leak does.
func (b Blame) MarshalJSON() ([]byte, error) {
	type plain Blame
	return json.Marshal(struct {
		plain
		stackJSON
	}{plain(b), b.Stack.json()})
}

// MarshalJSON adds where it was opened, as that of Leak does. As "through" is how the
// file is held, the calls that Stack.Through names are "site_through" here, and the
// call that attached the file is "attached_at".
func (h Holder) MarshalJSON() ([]byte, error) {
	stack := h.Stack.json()
	through := stack.Through
	stack.Through = ""
	attached := ""
	if len(h.Attached) > 0 {
		attached = h.AttachedAt().String()
	}
	return json.Marshal(struct {
		plainHeld
		State       TxState `json:"state"`
		Own         bool    `json:"own,omitempty"`
		File        string  `json:"file,omitempty"`
		Through     string  `json:"through,omitempty"`
		Maybe       bool    `json:"maybe,omitempty"`
		AttachedAt  string  `json:"attached_at,omitempty"`
		SiteThrough string  `json:"site_through,omitempty"`
		stackJSON
	}{plainHeld(h.Held), h.State, h.Own, h.File, h.Through, h.Maybe, attached, through, stack})
}

// MarshalJSON adds where the lock was taken, as that of Leak does.
func (b BlameCount) MarshalJSON() ([]byte, error) {
	type plain BlameCount
	return json.Marshal(struct {
		plain
		stackJSON
	}{plain(b), b.Stack.json()})
}
