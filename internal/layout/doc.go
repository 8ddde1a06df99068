// Package layout holds, as a test, which package may import which.
package layout
