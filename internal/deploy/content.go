package deploy

import (
	"cmp"
	"path"
	"strings"
)

const (
	cacheForever    = "public, max-age=31536000, immutable"
	cacheRevalidate = "public, max-age=0, must-revalidate"
)

// cacheControl is immutable for what has its content in its name. All else may
// be kept but must be asked for again: after a deploy people look at once.
func cacheControl(key string) string {
	if isHashed(key) {
		return cacheForever
	}
	return cacheRevalidate
}

func isPage(key string) bool {
	switch strings.ToLower(path.Ext(key)) {
	case ".html", ".htm", ".xhtml":
		return true
	}
	return false
}

// isHashed reports whether key is an asset named by its content: below _astro/,
// and called name.HASH.ext or, as fonts are, HASH.ext.
func isHashed(key string) bool {
	dir, base := path.Split(key)
	if !strings.HasPrefix(dir, "_astro/") && !strings.Contains(dir, "/_astro/") || isPage(key) {
		return false
	}
	base = strings.TrimSuffix(base, ".map")
	stem := strings.TrimSuffix(base, path.Ext(base))
	if stem == base || stem == "" {
		return false
	}
	if ext := path.Ext(stem); ext != "" {
		// An image's hash is followed by one of how it was scaled.
		return isHash(ext[1:], 8)
	}
	return isHash(stem, 16)
}

func isHash(s string, atLeast int) bool {
	for _, c := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", c) {
			return false
		}
	}
	return len(s) >= atLeast
}

// contentType is a table of our own: the one of the operating system differs
// from machine to machine, and a slim image has none.
func contentType(key string) string {
	if t := cmp.Or(textType(key), mediaType(key)); t != "" {
		return t
	}
	switch strings.ToLower(path.Ext(key)) {
	case ".avif":
		return "image/avif"
	case ".webp":
		return "image/webp"
	case ".png", ".apng":
		return "image/png"
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".gif":
		return "image/gif"
	case ".ico":
		return "image/x-icon"
	case ".bmp":
		return "image/bmp"
	case ".woff2":
		return "font/woff2"
	case ".woff":
		return "font/woff"
	case ".ttf":
		return "font/ttf"
	case ".otf":
		return "font/otf"
	case ".eot":
		return "application/vnd.ms-fontobject"
	case ".wasm":
		return "application/wasm"
	case ".pdf":
		return "application/pdf"
	case ".zip":
		return "application/zip"
	case ".gz":
		return "application/gzip"
	case ".glb":
		return "model/gltf-binary"
	}
	return "application/octet-stream"
}

// mediaType is the part of the table for what is played.
func mediaType(key string) string {
	switch strings.ToLower(path.Ext(key)) {
	case ".mp4", ".m4v":
		return "video/mp4"
	case ".webm":
		return "video/webm"
	case ".mov":
		return "video/quicktime"
	case ".ogv":
		return "video/ogg"
	case ".mp3":
		return "audio/mpeg"
	case ".m4a":
		return "audio/mp4"
	case ".ogg", ".oga", ".opus":
		return "audio/ogg"
	case ".wav":
		return "audio/wav"
	case ".flac":
		return "audio/flac"
	}
	return ""
}

// textType is the part of the table for what people write.
func textType(key string) string {
	switch strings.ToLower(path.Ext(key)) {
	case ".html", ".htm":
		return "text/html; charset=utf-8"
	case ".xhtml":
		return "application/xhtml+xml"
	case ".css":
		return "text/css"
	case ".js", ".mjs", ".cjs":
		return "text/javascript"
	case ".json", ".map":
		return "application/json"
	case ".jsonld":
		return "application/ld+json"
	case ".geojson":
		return "application/geo+json"
	case ".webmanifest":
		return "application/manifest+json"
	case ".svg":
		return "image/svg+xml"
	case ".xml", ".xsl":
		return "application/xml"
	case ".rss":
		return "application/rss+xml"
	case ".atom":
		return "application/atom+xml"
	case ".txt":
		return "text/plain; charset=utf-8"
	case ".md":
		return "text/markdown; charset=utf-8"
	case ".csv":
		return "text/csv; charset=utf-8"
	case ".vtt":
		return "text/vtt"
	case ".ics":
		return "text/calendar; charset=utf-8"
	case ".vcf":
		return "text/vcard; charset=utf-8"
	}
	if path.Base(key) == "apple-app-site-association" {
		return "application/json"
	}
	return ""
}
