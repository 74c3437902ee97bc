import { defineConfig } from 'astro/config';

export default defineConfig({
  site: 'https://edit.amelia.webordinary.com',
  build: {
    // Flat pages and relative links: the built site also opens from a directory, without a server.
    format: 'file',
    assetsPrefix: '.',
    // Style sheets become files of their own, named by their content, and are cached for a year.
    inlineStylesheets: 'never',
  },
});
