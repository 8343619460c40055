"""People drawn with polygons: attributes, bodies, garments, scenes, cameras, and what a person would say of them."""
