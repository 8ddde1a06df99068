// Package vault opens an archive as one thing: the folder, the lock on it, the
// ledger in it and the driver of its format, brought together with what an
// earlier run left, killed or not.
//
// On disk it owns ARCHIVE/.mailhaul/lock (a kernel lock) and
// ARCHIVE/.mailhaul/archive (which archive this is, and its format), and in the
// user's state directory a note for each path that held an archive, so that an
// unmounted one is not mistaken for a new one.
package vault
