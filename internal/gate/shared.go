package gate

import "sync"

// caches holds one lock for each shared cache of the process.
var caches struct {
	sync.Mutex
	m map[string]*Shared
}

// Shared is what the gates of one shared cache have in common. The owners
// that are inside any of its connections keep the reaper out of all of them, and
// the reaper inside one keeps the owners of all waiting.
type Shared struct {
	// word counts the owners inside as a gate counts operations, and has its
	// bits reaping and awaited.
	word Word
	turn turn

	name string
	refs int // guarded by caches
}

// enter waits for a reaper that is inside; false if done is closed first.
func (g *Shared) enter(done <-chan struct{}) bool {
	for {
		w := g.word.Load()
		if w&Reaping == 0 {
			if g.word.CompareAndSwap(w, w+operation) {
				return true
			}
		} else if !g.turn.await(&g.word, done) {
			return false
		}
	}
}

// leave follows enter. Without a shared cache it does nothing.
func (g *Shared) leave() {
	if g != nil {
		g.word.Add(^(operation - 1))
	}
}

// try takes the cache for the reaper if nobody is inside any of its
// connections. They may belong to several trackers, so the channel that their
// owners wait for is nobody's bubble's.
func (g *Shared) try() bool {
	g.turn.prepare()
	return g.word.CompareAndSwap(0, Reaping)
}

// release follows try. Without a shared cache it does nothing.
func (g *Shared) release() {
	if g != nil && g.word.And(^(Reaping|Awaited))&Awaited != 0 {
		g.turn.end()
	}
}

// drop forgets the lock with its last connection.
func (g *Shared) Drop() {
	if g == nil {
		return
	}
	caches.Lock()
	defer caches.Unlock()
	if g.refs--; g.refs == 0 {
		delete(caches.m, g.name)
	}
}

// cacheGateOf returns what the gates of the shared cache of this name have in common.
// Each call is answered by one of drop.
func SharedOf(name string) *Shared {
	caches.Lock()
	defer caches.Unlock()
	g := caches.m[name]
	if g == nil {
		g = &Shared{name: name}
		if caches.m == nil {
			caches.m = make(map[string]*Shared)
		}
		caches.m[name] = g
	}
	g.refs++
	return g
}
