package tracker

import "time"

// OpenedIn records how long it took to open the connection, for the event that
// Register tells. The driver calls it before Register.
func (c *Conn) OpenedIn(d time.Duration) { c.openedIn = d }
