package deploy

import (
	"slices"
	"strings"
	"time"
)

// Keep says how long hashed assets outlive the build that made them.
type Keep struct {
	Grace time.Duration
	Now   time.Time
	// Retired says since when assets have not been part of the build, as
	// Changes.Retired of the deploy before gave it; an asset it does not name
	// counts from Now. Nil means that nothing is remembered: then the time an
	// asset was uploaded stands in, and one uploaded long ago goes as soon as
	// the pages that named it are replaced.
	Retired map[string]time.Time
}

// Upload is a file to put, and what must still hold of the object it replaces.
type Upload struct {
	File File
	If   Condition
}

// Changes is what makes a bucket hold a build, in the order of the fields, each
// done before the next is begun.
type Changes struct {
	Assets      []Upload // hashed assets
	Files       []Upload // what is neither asset nor page
	Pages       []Upload
	DeletePages []string // before the assets they may name
	Delete      []string // other files, and assets older than the grace

	Unchanged int                  // files that are there already
	Retired   map[string]time.Time // assets of earlier builds that stay, and since when they are not needed
}

// Plan compares a build with what a bucket holds. An object whose content or
// headers are not known to be right is uploaded.
func Plan(files []File, objects []Object, keep Keep) Changes {
	c := Changes{Retired: map[string]time.Time{}}
	stale := make(map[string]*Object, len(objects))
	for i := range objects {
		stale[objects[i].Key] = &objects[i]
	}
	for _, f := range files {
		o, there := stale[f.Key]
		if there {
			delete(stale, f.Key)
		} else {
			o = &Object{}
		}
		if there && same(f, *o) {
			c.Unchanged++
			continue
		}
		c.upload(Upload{File: f, If: Condition{ETag: o.ETag, Absent: !there}})
	}
	for key, o := range stale {
		since, hashed := keep.since(*o)
		switch {
		case hashed && keep.Now.Sub(since) < keep.Grace:
			c.Retired[key] = since
		case isPage(key):
			c.DeletePages = append(c.DeletePages, key)
		default:
			c.Delete = append(c.Delete, key)
		}
	}
	slices.Sort(c.DeletePages)
	slices.Sort(c.Delete)
	return c
}

func (c *Changes) upload(u Upload) {
	switch {
	case isHashed(u.File.Key):
		c.Assets = append(c.Assets, u)
	case isPage(u.File.Key):
		c.Pages = append(c.Pages, u)
	default:
		c.Files = append(c.Files, u)
	}
}

// since says when an asset that is not part of the build ceased to be, and
// whether it is a hashed asset at all.
func (k Keep) since(o Object) (time.Time, bool) {
	if !isHashed(o.Key) {
		return time.Time{}, false
	}
	if k.Retired == nil {
		return o.Modified, true
	}
	if t, ok := k.Retired[o.Key]; ok {
		return t, true
	}
	return k.Now, true
}

func same(f File, o Object) bool {
	return sameContent(f, o) && o.ContentType == f.ContentType && o.CacheControl == f.CacheControl
}

// sameContent goes by the SHA-256 if it is known. Else an ETag that is our MD5
// proves equality, however the object was put. Another one proves nothing: an
// upload in parts and encryption with a KMS key have ETags that are no MD5.
func sameContent(f File, o Object) bool {
	if o.SHA256 != "" {
		return o.SHA256 == f.SHA256
	}
	return o.Size == f.Size && strings.Trim(o.ETag, `"`) == f.MD5 && f.MD5 != ""
}
