// Package meminfo reads what the machine and this process use of memory: the
// machine by gopsutil, on Linux also the limits of the process's cgroups and how
// long tasks wait for memory (pressure stall information), and the limit that
// Go's runtime was given. It reads and sets nothing.
//
// Every source may be missing. A reading is made of the others, and says of each
// what became of it.
package meminfo
