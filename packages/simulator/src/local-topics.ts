/**
 * The forty topics in German, French and Spanish: fewer phrases than in English, but written in the
 * language, so that the `language` of a publication or campaign says what its texts are. Per topic: its
 * name, four noun phrases, and a product as `noun>what it does>headline`.
 */
export const LOCAL_LANGUAGES = ['de', 'fr', 'es'] as const;
export type LocalLanguage = (typeof LOCAL_LANGUAGES)[number];

export interface LocalTopic {
  readonly name: string;
  readonly covers: readonly string[];
  readonly product: readonly [noun: string, pitch: string, headline: string];
}

type Lines = Readonly<Record<string, string>>;

const GERMAN: Lines = {
  ai: 'Künstliche Intelligenz|große Sprachmodelle;KI-Agenten;Modellvergleiche;KI-Regulierung|KI-Schreibassistent>Entwirft, kürzt und überarbeitet Texte mit einem Sprachmodell>Doppelt so schnell schreiben mit KI',
  dev: 'Softwareentwicklung|JavaScript-Frameworks;Datenbanken von innen;gute Code-Reviews;freie Software|Editor-Erweiterung>Findet Fehler im Quelltext schon beim Tippen>Den Fehler vor dem Commit finden',
  security:
    'IT-Sicherheit|Datenlecks;Erpressungssoftware;neue Sicherheitslücken;Phishing-Wellen|Passwortmanager>Verwahrt und teilt Firmenpasswörter mit Ende-zu-Ende-Verschlüsselung>Ein Tresor für jedes Passwort',
  data: 'Daten und Analyse|Datenpipelines;SQL-Muster;verständliche Dashboards;Statistik für Produktteams|Analyse-Dashboard>Macht aus SQL-Abfragen Diagramme für die ganze Firma>Dashboards, die gelesen werden',
  gadgets:
    'Unterhaltungselektronik|Smartphones;kabellose Kopfhörer;Laptops im Test;das vernetzte Zuhause|Kopfhörer mit Geräuschunterdrückung>Sperren den Pendlerlärm aus und halten vierzig Stunden durch>Nur hören, was du willst',
  startups:
    'Start-ups und Wagniskapital|Finanzierungsrunden;Gespräche mit Gründerinnen;Pitch-Decks;Trends im Wagniskapital|Geschäftskonto für Gründer>Eröffnet ein Firmenkonto in zehn Minuten>Banking für Gründer',
  marketing:
    'Marketing und Werbung|Landingpages im Test;Änderungen bei Google;Anzeigen in sozialen Netzen;E-Mail-Marketing|E-Mail-Plattform>Verschickt Kampagnen, die Liste und Umsatz wachsen lassen>E-Mails, die verkaufen',
  ecommerce:
    'Onlinehandel|Wachstum für Onlineshops;junge Marken;einfachere Kassen;Händler auf Marktplätzen|Shop-Baukasten>Eröffnet einen Onlineshop mit Zahlung und Versand>Heute Abend den Shop eröffnen',
  leadership:
    'Führung und Karriere|Mitarbeiterführung;Bewerbungsgespräche;Arbeit im Homeoffice;Gehaltsverhandlungen|Personalsoftware>Erledigt Gehälter, Einarbeitung und Urlaubsanträge>Personalarbeit ohne Papier',
  saas: 'Vertrieb und Unternehmenssoftware|Kaltakquise;CRM-Abläufe;Preisseiten;Kundenbetreuung|CRM für kleine Teams>Behält Abschlüsse im Blick und fasst von selbst nach>Mehr Abschlüsse, weniger Tippen',
  finance:
    'Persönliche Finanzen|Haushaltsbudgets;Kreditkarten;Studienkredite;Altersvorsorge|Tagesgeldkonto>Zahlt ein Vielfaches der üblichen Zinsen auf Erspartes>Lass dein Erspartes arbeiten',
  stocks:
    'Aktien und Börse|Dividendenaktien;Indexfonds;Quartalszahlen;Bewertung von Aktien|Aktienbrief>Empfiehlt jeden Monat Aktien mit gründlicher Analyse>Zwei Aktien im Monat',
  crypto:
    'Krypto und Blockchain|der Bitcoin-Kurs;neues bei Ethereum;Stablecoins;dezentrale Finanzen|Kryptobörse>Kauft Bitcoin und Ethereum zu niedrigen Gebühren>Der erste Bitcoin',
  realestate:
    'Immobilien|Bauzinsen;Hauspreise;vermietete Wohnungen;der Weg zum Eigenheim|Baufinanzierungsvergleich>Vergleicht die Zinsen von Dutzenden Banken>Günstiger finanzieren in Minuten',
  markets:
    'Wirtschaft und Märkte|Inflationszahlen;Entscheidungen der Zentralbanken;Anleihemärkte;Handelspolitik|Wirtschaftszeitung>Erklärt Märkte, Notenbanken und Konjunktur>Jeden Morgen die Märkte verstehen',
  fitness:
    'Fitness und Laufen|Krafttraining;Marathonpläne;Training zu Hause;Übungen für die Beweglichkeit|Fitnessgerät für zu Hause>Bringt Krafttraining ins Wohnzimmer>Ein Studio, das in die Ecke passt',
  nutrition:
    'Ernährung|eiweißreiche Mahlzeiten;Darmgesundheit;Vitamine;Studien zum Abnehmen|Grünes Pulver>Packt Vitamine, Mineralien und Probiotika in ein Getränk>Alles Grüne in einem Löffel',
  mental:
    'Psychische Gesundheit und Achtsamkeit|Umgang mit Angst;Meditation;Therapie erklärt;Burn-out|Online-Therapie>Vermittelt Gespräche mit zugelassenen Therapeuten per Video>Noch diese Woche darüber reden',
  medicine:
    'Medizin und Biotechnologie|klinische Studien;neue Medikamente;Krankenhauspolitik;Gentherapie|Videosprechstunde>Verbindet Patienten noch am selben Tag mit einem Arzt>Heute zum Arzt, von zu Hause',
  longevity:
    'Schlaf und langes Leben|besserer Schlaf;Altersforschung;Biomarker;Kältebäder und Sauna|Kühlende Matratze>Hält das Bett auf der richtigen Temperatur für tiefen Schlaf>Kühl schlafen, wach sein',
  cooking:
    'Kochen und Rezepte|schnelle Abendessen;Brot backen;Messertechnik;Rezepte der Saison|Kochbox>Liefert frische Zutaten mit Rezept nach Hause>Das Abendessen ist gelöst',
  drinks:
    'Wein, Kaffee und Spirituosen|Naturwein;Espressotechnik;Cocktailrezepte;Craftbier|Weinclub>Schickt jeden Monat Flaschen von kleinen Winzern>Wein vom Winzer',
  garden:
    'Garten|Gemüsebeete;Zimmerpflanzen;Kompost;heimische Pflanzen|Hochbeet>Lässt Gemüse auf jedem Balkon wachsen>Überall ernten',
  homeware:
    'Wohnen und Heimwerken|Ideen für kleine Räume;Küchenumbau;Wandfarben;Möbeltischler|Modulsofa>Kommt in Kisten und passt in jedes Wohnzimmer>Ein Sofa, das mit umzieht',
  parenting:
    'Familie und Erziehung|Schlaf bei Kleinkindern;Pausenbrote;Bildschirmzeit;Schwangerschaft|Lern-App für Kinder>Lehrt Lesen und Rechnen mit Spielen>Bildschirmzeit, die sich lohnt',
  books:
    'Bücher und Schreiben|neue Romane;Gespräche mit Autorinnen;das Handwerk des Schreibens;Lyrik|Hörbuch-Abo>Liefert jeden Monat ein neues Hörbuch>Mehr Bücher hören',
  film: 'Film und Fernsehen|Streaming-Premieren;Filmkritiken;Fernsehserien;Regisseure bei der Arbeit|Streamingdienst>Zeigt preisgekrönte Filme und Serien ohne Werbung>Große Filme, kein Suchen',
  music:
    'Musik|neue Alben;Konzertberichte;Schallplatten;Musikproduktion|Musik-Abo>Spielt Alben und Listen ohne Qualitätsverlust>Jede Einzelheit hören',
  design:
    'Kunst und Gestaltung|Typografie;Grafikdesign;Fotografie;Ausstellungen|Designprogramm>Lässt Teams Oberflächen gemeinsam im Browser gestalten>Zusammen gestalten',
  fashion:
    'Mode und Schönheit|wenige gute Kleidungsstücke;Hautpflege;Laufstegtrends;Turnschuhe|Hautpflege-Set>Reinigt und pflegt die Haut mit einfachen Zutaten>Haut, die mitmacht',
  politics:
    'Politik|Wahlumfragen;Bundestag und Parteien;Außenpolitik;Gerichtsurteile|Nachrichten-Abo>Bringt unabhängigen politischen Journalismus>Nachrichten ohne Lärm',
  climate:
    'Klima und Energie|Sonne und Wind;Emissionshandel;Stromnetze;Klimapolitik|Solaranlage fürs Dach>Senkt die Stromrechnung mit Energie vom eigenen Dach>Das Dach zahlt zurück',
  science:
    'Wissenschaft und Raumfahrt|Raumfahrtmissionen;Entdeckungen der Physik;Biologie;Teleskope und Galaxien|Teleskop für zu Hause>Zeigt Planeten und Galaxien vom Garten aus>Heute Abend den Saturn sehen',
  cities:
    'Stadtleben|Beschlüsse im Rathaus;Bus und Bahn;Lokale im Viertel;Termine am Wochenende|Stadt-App>Findet Konzerte, Märkte und Ausflüge in der Nähe>Das Wochenende ist geplant',
  education:
    'Bildung und Lernen|Ideen für den Unterricht;Studienplätze;Sprachen lernen;Onlinekurse|Sprachlern-App>Lehrt Gespräche in fünfzehn Minuten am Tag>Eine neue Sprache sprechen',
  travel:
    'Reisen|günstige Flüge;Städtereisen;Wanderwege;Hotels im Test|Flugpreisalarm>Findet Preisfehler und günstige Flüge ab deinem Flughafen>Zum halben Preis fliegen',
  sports:
    'Sport|Bundesliga-Ergebnisse;Basketball;Taktik;Transfergerüchte|Managerspiel>Lässt Freunde in einer eigenen Liga gegeneinander antreten>Stell deine Elf auf',
  cars: 'Autos|Elektroautos;Autotests;Oldtimer;Formel 1|Elektroauto-Abo>Bringt ein neues E-Auto samt Ladestrom vor die Tür>Diesen Monat elektrisch fahren',
  gaming:
    'Videospiele|neue Spiele;Konsolen;Indie-Spiele;E-Sport-Turniere|Headset für Spieler>Sorgt für klare Stimmen und Raumklang>Hör sie kommen',
  pets: 'Haustiere|Hundetraining;Katzenverhalten;Tierfutter;Welpengeschichten|Frisches Hundefutter>Liefert tierärztlich geprüfte Mahlzeiten für den Hund>Echtes Futter für gute Hunde',
};

const FRENCH: Lines = {
  ai: 'intelligence artificielle|les grands modèles de langue;les agents d’IA;les comparatifs de modèles;la régulation de l’IA|assistant d’écriture par IA>Rédige, corrige et résume vos documents>Écrire deux fois plus vite',
  dev: 'développement logiciel|les bibliothèques JavaScript;les bases de données;la relecture de code;le logiciel libre|extension d’éditeur>Trouve les bogues pendant la frappe>Le bogue repéré avant le commit',
  security:
    'cybersécurité|les fuites de données;les rançongiciels;les failles récentes;l’hameçonnage|gestionnaire de mots de passe>Range et partage les mots de passe de l’entreprise>Un coffre pour chaque mot de passe',
  data: 'données et analyse|les flux de données;les requêtes SQL;les tableaux de bord lisibles;la statistique pour les produits|tableau de bord>Transforme vos requêtes SQL en graphiques vivants>Des tableaux de bord que l’on lit',
  gadgets:
    'high-tech|les smartphones;les écouteurs sans fil;les ordinateurs portables à l’essai;la maison connectée|casque antibruit>Efface le bruit du train pendant quarante heures>N’entendre que ce que l’on veut',
  startups:
    'start-up et capital-risque|les levées de fonds;les entretiens de fondateurs;les présentations aux investisseurs;les tendances du capital-risque|compte pour start-up>Ouvre un compte professionnel en dix minutes>La banque des fondateurs',
  marketing:
    'marketing et publicité|les pages d’accueil décortiquées;le référencement;la publicité sociale;l’e-mailing|plateforme d’e-mailing>Envoie des campagnes qui font grandir la liste>Des e-mails qui vendent',
  ecommerce:
    'commerce en ligne|la croissance des boutiques;les jeunes marques;le paiement simplifié;les vendeurs de places de marché|créateur de boutique>Ouvre une boutique avec paiement et livraison>Votre boutique ce soir',
  leadership:
    'management et carrière|l’art de diriger;les entretiens d’embauche;le télétravail;la négociation de salaire|logiciel RH>Gère la paie, l’accueil et les congés>Les RH sans papier',
  saas: 'vente et logiciels d’entreprise|la prospection;les outils CRM;les pages de prix;la réussite client|CRM pour petites équipes>Suit les affaires et relance tout seul>Signer plus, taper moins',
  finance:
    'finances personnelles|le budget du foyer;les cartes bancaires;les prêts étudiants;la retraite|livret à haut rendement>Rapporte plusieurs fois le taux habituel>Faites travailler votre épargne',
  stocks:
    'bourse et actions|les actions à dividendes;les fonds indiciels;les résultats trimestriels;la valeur des actions|lettre boursière>Recommande chaque mois des actions bien étudiées>Deux actions par mois',
  crypto:
    'crypto et blockchain|le cours du bitcoin;les nouveautés d’Ethereum;les stablecoins;la finance décentralisée|bourse de cryptomonnaies>Achète bitcoin et ether à petits frais>Votre premier bitcoin',
  realestate:
    'immobilier|les taux de crédit;les prix des logements;l’investissement locatif;l’achat d’une maison|comparateur de crédit immobilier>Compare les taux de dizaines de banques>Un meilleur taux en quelques minutes',
  markets:
    'économie et marchés|les chiffres de l’inflation;les banques centrales;les obligations;la politique commerciale|journal économique>Explique les marchés et la conjoncture>Les marchés chaque matin',
  fitness:
    'forme et course à pied|la musculation;les plans de marathon;les séances à la maison;la souplesse|appareil de musculation>Installe la salle de sport au salon>Une salle dans un coin',
  nutrition:
    'nutrition|les repas riches en protéines;la santé de l’intestin;les vitamines;les études sur la perte de poids|poudre de légumes verts>Réunit vitamines et probiotiques dans un verre>Tout le vert en une cuillère',
  mental:
    'santé mentale et pleine conscience|les outils contre l’anxiété;la méditation;la thérapie expliquée;l’épuisement|thérapie en ligne>Met en relation avec un thérapeute diplômé en vidéo>En parler dès cette semaine',
  medicine:
    'médecine et biotechnologies|les essais cliniques;les nouveaux médicaments;la politique hospitalière;la thérapie génique|téléconsultation>Relie patients et médecins le jour même>Le médecin, de chez vous',
  longevity:
    'sommeil et longévité|la qualité du sommeil;la recherche sur l’âge;les biomarqueurs;les bains froids et le sauna|matelas rafraîchissant>Garde le lit à la bonne température>Dormir au frais',
  cooking:
    'cuisine et recettes|les dîners rapides;le pain maison;l’art du couteau;les recettes de saison|panier-repas>Livre ingrédients frais et recettes à la maison>Le dîner est réglé',
  drinks:
    'vin, café et spiritueux|le vin nature;la technique de l’espresso;les cocktails;la bière artisanale|club de vin>Expédie chaque mois des bouteilles de vignerons>Le vin des vignerons',
  garden:
    'jardinage|le potager;les plantes d’intérieur;le compost;les plantes locales|carré potager>Fait pousser des légumes sur tous les balcons>Récolter partout',
  homeware:
    'maison et bricolage|les petits espaces;la rénovation de cuisine;les couleurs de peinture;les artisans du meuble|canapé modulable>Arrive en cartons et tient dans tout salon>Un canapé qui déménage avec vous',
  parenting:
    'parents et famille|le sommeil des petits;les repas d’école;le temps d’écran;la grossesse|appli éducative>Apprend à lire et compter par le jeu>Des écrans utiles',
  books:
    'livres et écriture|les nouveaux romans;les entretiens d’auteurs;l’art d’écrire;la poésie|abonnement aux livres audio>Offre un nouveau livre audio chaque mois>Écouter plus de livres',
  film: 'cinéma et séries|les sorties en streaming;les critiques de films;les séries;les cinéastes au travail|service de streaming>Montre des films primés sans publicité>De grands films, sans chercher',
  music:
    'musique|les nouveaux albums;les concerts;les vinyles;la production musicale|abonnement musical>Joue albums et listes sans perte>Entendre chaque détail',
  design:
    'art et design|la typographie;le graphisme;la photographie;les expositions|logiciel de design>Permet de créer des interfaces à plusieurs>Dessiner ensemble',
  fashion:
    'mode et beauté|la garde-robe essentielle;les soins de la peau;les tendances des défilés;les baskets|coffret de soins>Nettoie et hydrate avec des ingrédients simples>Une peau qui suit',
  politics:
    'politique|les sondages;l’Assemblée et le Sénat;la politique étrangère;les décisions de justice|abonnement à la presse>Apporte un journalisme politique indépendant>L’actualité sans le bruit',
  climate:
    'climat et énergie|le solaire et l’éolien;le marché du carbone;les réseaux électriques;la politique du climat|panneaux solaires>Réduisent la facture avec l’énergie du toit>Votre toit vous paie',
  science:
    'science et espace|les missions spatiales;les découvertes de la physique;la biologie;les télescopes et les galaxies|télescope>Montre planètes et galaxies depuis le jardin>Saturne ce soir',
  cities:
    'vie locale et villes|le conseil municipal;les transports publics;les restaurants du quartier;les sorties du week-end|appli de sorties>Trouve concerts et marchés près de chez vous>Le week-end est prêt',
  education:
    'éducation|les idées pour la classe;l’entrée à l’université;l’apprentissage des langues;les cours en ligne|appli de langues>Apprend à converser en quinze minutes par jour>Parler une nouvelle langue',
  travel:
    'voyages|les vols pas chers;les week-ends en ville;les sentiers de randonnée;les hôtels|alerte de vols>Trouve les erreurs de prix depuis votre aéroport>Voler à moitié prix',
  sports:
    'sport|les résultats du football;le basket;la tactique;les transferts|jeu de ligue>Fait jouer vos amis dans votre propre championnat>Composez votre équipe',
  cars: 'automobile|les voitures électriques;les essais;les voitures anciennes;la Formule 1|location de voiture électrique>Livre une voiture neuve, recharge comprise>Roulez électrique ce mois-ci',
  gaming:
    'jeux vidéo|les sorties de jeux;les consoles;les jeux indépendants;les tournois d’e-sport|casque de jeu>Offre des voix claires et un son spatial>Entendez-les venir',
  pets: 'animaux|l’éducation du chien;le comportement du chat;l’alimentation animale;les histoires de chiots|repas frais pour chien>Livre des repas approuvés par des vétérinaires>De vrais repas pour bons chiens',
};

const SPANISH: Lines = {
  ai: 'inteligencia artificial|los grandes modelos de lenguaje;los agentes de IA;las comparativas de modelos;la regulación de la IA|asistente de escritura con IA>Redacta, corrige y resume documentos>Escribe el doble de rápido',
  dev: 'desarrollo de software|los marcos de JavaScript;las bases de datos por dentro;la revisión de código;el código abierto|extensión para el editor>Encuentra errores mientras escribes>El error, antes del commit',
  security:
    'ciberseguridad|las filtraciones de datos;el ransomware;las vulnerabilidades;las campañas de phishing|gestor de contraseñas>Guarda y comparte las claves de la empresa>Una bóveda para cada clave',
  data: 'datos y analítica|los flujos de datos;los patrones de SQL;los paneles que se leen;la estadística de producto|panel de análisis>Convierte consultas SQL en gráficos en vivo>Paneles que tu equipo leerá',
  gadgets:
    'electrónica de consumo|los teléfonos móviles;los auriculares sin cable;los portátiles a prueba;la casa conectada|auriculares con cancelación de ruido>Borran el ruido del metro durante cuarenta horas>Oye solo lo que quieras',
  startups:
    'startups y capital riesgo|las rondas de financiación;las entrevistas a fundadores;las presentaciones a inversores;las tendencias del capital riesgo|cuenta para startups>Abre una cuenta de empresa en diez minutos>El banco de los fundadores',
  marketing:
    'marketing y publicidad|las páginas de destino;los cambios de SEO;los anuncios en redes;el correo electrónico|plataforma de correo>Envía campañas que hacen crecer tu lista>Correos que venden',
  ecommerce:
    'comercio electrónico|el crecimiento de tiendas;las marcas jóvenes;el pago sencillo;los vendedores de marketplaces|creador de tiendas>Abre una tienda con pago y envío>Tu tienda, esta noche',
  leadership:
    'liderazgo y carrera|la gestión de personas;las entrevistas de trabajo;el teletrabajo;la negociación del sueldo|software de RR. HH.>Lleva nóminas, altas y vacaciones>Recursos humanos sin papeles',
  saas: 'ventas y software de empresa|la venta en frío;los procesos de CRM;las páginas de precios;el éxito del cliente|CRM para equipos pequeños>Sigue las ventas y recuerda por ti>Más ventas, menos teclear',
  finance:
    'finanzas personales|el presupuesto familiar;las tarjetas de crédito;los préstamos de estudios;la jubilación|cuenta de ahorro>Paga varias veces el interés habitual>Haz trabajar tu ahorro',
  stocks:
    'bolsa y acciones|las acciones con dividendo;los fondos indexados;los resultados trimestrales;la valoración de acciones|boletín de bolsa>Recomienda cada mes acciones bien analizadas>Dos acciones al mes',
  crypto:
    'cripto y blockchain|el precio del bitcoin;las novedades de Ethereum;las stablecoins;las finanzas descentralizadas|plataforma de criptomonedas>Compra bitcoin y ether con comisiones bajas>Tu primer bitcoin',
  realestate:
    'vivienda e inmuebles|los tipos hipotecarios;el precio de la vivienda;los pisos en alquiler;la compra de casa|comparador de hipotecas>Compara los tipos de decenas de bancos>Una hipoteca mejor en minutos',
  markets:
    'economía y mercados|los datos de inflación;los bancos centrales;los bonos;la política comercial|diario económico>Explica los mercados y la coyuntura>Los mercados cada mañana',
  fitness:
    'ejercicio y carrera|el entrenamiento de fuerza;los planes de maratón;las rutinas en casa;la movilidad|equipo de gimnasio>Lleva la fuerza a tu salón>Un gimnasio en una esquina',
  nutrition:
    'nutrición|las comidas con proteína;la salud intestinal;las vitaminas;los estudios sobre el peso|polvo de verduras>Reúne vitaminas y probióticos en un vaso>Todo lo verde en una cucharada',
  mental:
    'salud mental y atención plena|las herramientas contra la ansiedad;la meditación;la terapia explicada;el agotamiento|terapia en línea>Te pone en contacto con un terapeuta titulado>Habla con alguien esta semana',
  medicine:
    'medicina y biotecnología|los ensayos clínicos;los nuevos fármacos;la política hospitalaria;la terapia génica|consulta por vídeo>Conecta a pacientes y médicos el mismo día>El médico, desde casa',
  longevity:
    'sueño y longevidad|la calidad del sueño;la ciencia del envejecimiento;los biomarcadores;los baños fríos y la sauna|colchón refrescante>Mantiene la cama a la temperatura justa>Duerme fresco',
  cooking:
    'cocina y recetas|las cenas rápidas;el pan casero;el manejo del cuchillo;las recetas de temporada|caja de comida>Lleva ingredientes frescos y recetas a casa>La cena, resuelta',
  drinks:
    'vino, café y licores|el vino natural;la técnica del espresso;los cócteles;la cerveza artesana|club de vinos>Envía cada mes botellas de pequeñas bodegas>Vino de viticultores',
  garden:
    'jardín y huerto|el huerto;las plantas de interior;el compost;las plantas autóctonas|bancal elevado>Cultiva verduras en cualquier balcón>Cosecha donde quieras',
  homeware:
    'casa y bricolaje|los espacios pequeños;la reforma de la cocina;los colores de pintura;los ebanistas|sofá modular>Llega en cajas y cabe en cualquier salón>Un sofá que se muda contigo',
  parenting:
    'padres y familia|el sueño infantil;las meriendas;el tiempo de pantalla;el embarazo|aplicación infantil>Enseña a leer y contar jugando>Pantallas que valen la pena',
  books:
    'libros y escritura|las nuevas novelas;las entrevistas a autores;el oficio de escribir;la poesía|suscripción de audiolibros>Regala un audiolibro nuevo al mes>Escucha más libros',
  film: 'cine y televisión|los estrenos en streaming;las críticas de cine;las series;los directores en el rodaje|servicio de streaming>Ofrece películas premiadas sin anuncios>Gran cine, sin buscar',
  music:
    'música|los discos nuevos;las crónicas de conciertos;los vinilos;la producción musical|suscripción de música>Reproduce discos sin pérdida>Oye cada detalle',
  design:
    'arte y diseño|la tipografía;el diseño gráfico;la fotografía;las exposiciones|programa de diseño>Permite diseñar interfaces en equipo>Diseñad juntos',
  fashion:
    'moda y belleza|el armario cápsula;el cuidado de la piel;las pasarelas;las zapatillas|set de cuidado facial>Limpia e hidrata con ingredientes sencillos>Piel que se porta bien',
  politics:
    'política|las encuestas;el Congreso y los partidos;la política exterior;las sentencias|suscripción de noticias>Trae periodismo político independiente>Noticias sin ruido',
  climate:
    'clima y energía|la energía solar y eólica;los mercados de carbono;la red eléctrica;la política climática|placas solares>Rebajan la factura con energía del tejado>Tu tejado te paga',
  science:
    'ciencia y espacio|las misiones espaciales;los hallazgos de la física;la biología;los telescopios y las galaxias|telescopio doméstico>Muestra planetas y galaxias desde el jardín>Saturno, esta noche',
  cities:
    'noticias locales y ciudades|los plenos municipales;el transporte público;los restaurantes del barrio;los planes del fin de semana|agenda de la ciudad>Encuentra conciertos y mercados cerca>El fin de semana, planeado',
  education:
    'educación|las ideas para el aula;el acceso a la universidad;el aprendizaje de idiomas;los cursos en línea|aplicación de idiomas>Enseña a conversar en quince minutos al día>Habla otro idioma',
  travel:
    'viajes|los vuelos baratos;las escapadas urbanas;las rutas de senderismo;los hoteles|alertas de vuelos>Encuentra errores de precio desde tu aeropuerto>Vuela a mitad de precio',
  sports:
    'deportes|los resultados de la liga;el baloncesto;la táctica;los fichajes|liga de fantasía>Enfrenta a tus amigos en una liga propia>Haz tu alineación',
  cars: 'coches y motor|los coches eléctricos;las pruebas de coches;los clásicos;la Fórmula 1|renting de coche eléctrico>Entrega un eléctrico nuevo con la carga incluida>Conduce eléctrico este mes',
  gaming:
    'videojuegos|los lanzamientos;las consolas;los juegos independientes;los torneos|auriculares de juego>Dan voz clara y sonido envolvente>Óyelos venir',
  pets: 'mascotas|el adiestramiento;el comportamiento felino;la comida para mascotas;las historias de cachorros|comida fresca para perros>Reparte comida aprobada por veterinarios>Comida de verdad para buenos perros',
};

function parse(lines: Lines): ReadonlyMap<string, LocalTopic> {
  return new Map(
    Object.entries(lines).map(([key, line]) => {
      const [name, covers, product] = line.split('|');
      const [noun, pitch, headline] = product!.split('>');
      return [
        key,
        { name: name!, covers: covers!.split(';'), product: [noun!, pitch!, headline!] },
      ];
    }),
  );
}

/** Topics by key, per language. */
export const LOCAL_TOPICS: Readonly<Record<LocalLanguage, ReadonlyMap<string, LocalTopic>>> = {
  de: parse(GERMAN),
  fr: parse(FRENCH),
  es: parse(SPANISH),
};

/** Frames around the topics' words, per language; `{…}` is filled in. */
export interface LocalFrames {
  readonly names: readonly string[];
  readonly about: readonly string[];
  readonly covers: readonly string[];
  readonly sections: string;
  readonly audience: string;
  readonly titles: readonly string[];
  readonly calls: readonly string[];
  readonly bodies: readonly string[];
  readonly interest: string;
}

export const LOCAL_FRAMES: Readonly<Record<LocalLanguage, LocalFrames>> = {
  de: {
    names: ['{name} am Morgen', 'Der Brief: {name}', '{name} kompakt', '{name} aktuell'],
    about: [
      'Das Wichtigste zum Thema {name}, verständlich erklärt.',
      '{name} für alle, die wenig Zeit haben.',
      'Berichte und Hintergründe zum Thema {name}.',
    ],
    covers: ['Wir schreiben über {cover}.', 'In jeder Ausgabe: {cover}.', 'Dazu {cover}.'],
    sections: 'Rubriken: {sections}.',
    audience: 'Für Leserinnen und Leser, die sich hierfür interessieren: {sections}.',
    titles: ['{cover}: was jetzt wichtig ist', '{cover} im Überblick', '{cover}: fünf Notizen'],
    calls: ['Zwei Wochen kostenlos testen.', 'Jetzt ansehen.', '20 % Rabatt für Leser.'],
    bodies: ['{brand}: {noun}. {pitch}. {call}', '{pitch}: {noun} von {brand}. {call}'],
    interest: '{noun} für alle, die das mögen: {cover}',
  },
  fr: {
    names: ['{name} du matin', 'La lettre : {name}', '{name} en bref', 'Le point : {name}'],
    about: [
      'L’essentiel sur le thème {name}, expliqué simplement.',
      '{name} : l’actualité pour ceux qui manquent de temps.',
      'Enquêtes et repères sur le thème {name}.',
    ],
    covers: ['Nous suivons {cover}.', 'Dans chaque numéro : {cover}.', 'Et aussi {cover}.'],
    sections: 'Rubriques : {sections}.',
    audience: 'Pour celles et ceux que cela intéresse : {sections}.',
    titles: ['{cover} : ce qui change', '{cover} en cinq notes', '{cover}, pas à pas'],
    calls: ['Essai gratuit de deux semaines.', 'Découvrez comment.', '20 % pour les lecteurs.'],
    bodies: ['{brand} : {noun}. {pitch}. {call}', '{pitch} : {noun} par {brand}. {call}'],
    interest: '{noun} pour qui aime {cover}',
  },
  es: {
    names: ['{name} al día', 'La carta: {name}', '{name} en breve', 'Buenos días, {name}'],
    about: [
      'Lo esencial sobre {name}, explicado con claridad.',
      '{name} para quien tiene poco tiempo.',
      'Reportajes y claves sobre {name}.',
    ],
    covers: ['Seguimos {cover}.', 'En cada número: {cover}.', 'Y además, {cover}.'],
    sections: 'Secciones: {sections}.',
    audience: 'Para quien se interesa por esto: {sections}.',
    titles: ['{cover}: qué cambia', '{cover} en cinco notas', '{cover}, paso a paso'],
    calls: ['Pruébalo gratis dos semanas.', 'Descubre cómo.', '20 % para lectores.'],
    bodies: ['{brand}: {noun}. {pitch}. {call}', '{pitch}: {noun} de {brand}. {call}'],
    interest: '{noun} para quien disfruta de {cover}',
  },
};
