package tracker

// UserFrames resolves the part of the stack that a person looks for: from the
// program's innermost call outwards, that is from [Stack.Site] or from what
// [Stack.Through] names; without the frames of database/sql and the guard at the top
// and those of the runtime at the bottom. Empty if nothing was recorded.
func (s Stack) UserFrames() []Frame { return userFrames(s) }
